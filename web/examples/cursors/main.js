import { Circle } from "../../muster/index.js";
import { enter, hue } from "../page.js";

const circle = await enter(({ invite, ...options }) => (invite ? Circle.join(invite, options) : Circle.create(options)));
const pipe = circle.pipe("cursor", { reliable: false });
const stage = document.querySelector("#stage");
const cursors = new Map();

stage.addEventListener("pointermove", ({ clientX, clientY }) => {
  const { left, top, width, height } = stage.getBoundingClientRect();
  pipe.send([(clientX - left) / width, (clientY - top) / height]);
});

pipe.addEventListener("message", ({ detail: { from, data } }) => {
  const cursor = cursors.get(from.id) ?? draw(from);
  cursor.style.translate = `${data?.[0] * 100}cqw ${data?.[1] * 100}cqh`;
});

circle.addEventListener("left", ({ detail }) => {
  cursors.get(detail.id)?.remove();
  cursors.delete(detail.id);
});

const draw = ({ id, name, member }) => {
  const cursor = stage.querySelector("template").content.firstElementChild.cloneNode(true);
  cursor.querySelector("span").textContent = name;
  cursor.style.setProperty("--hue", hue(member));
  cursors.set(id, cursor);
  stage.append(cursor);
  return cursor;
};
