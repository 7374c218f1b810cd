// What somebody's Node imports who has installed the package: test_package.py runs it.
import assert from "node:assert/strict";
import { Circle, Refused } from "muster-circles";
import { Community, verifyTicket } from "muster-circles/bootstrap";
const calls = await import("muster-circles/calls");
await assert.rejects(import("muster-circles/engine.js"), { code: "ERR_PACKAGE_PATH_NOT_EXPORTED" });
await assert.rejects(Circle.join("muster2.nonsense"), (error) => error instanceof Refused && !!error.reason);
console.log(JSON.stringify([Circle, Community, verifyTicket].map((one) => typeof one)), Object.keys(calls).length > 0);
