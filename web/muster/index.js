/**
 * Muster for browsers: peers, messages that wait, and a circle that proves itself, in ten lines.
 *
 *     import { Circle } from "https://host/app/muster/index.js";
 *     const circle = await Circle.join(location.hash, { name: "Ada" });
 *
 * docs/web.md has all of it; public communities are in `bootstrap/index.js`, media calls in `calls.js`,
 * which is loaded when a call begins.
 * @module
 */
export { Circle, Pipe } from "./circle.js";
export { Refused } from "./refused.js";
