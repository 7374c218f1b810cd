export { generate, correction } from "lean-qr";
export { toSvgPath } from "lean-qr/extras/svg";
