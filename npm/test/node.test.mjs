// The package's own entry keeps what the browser's client promises, in whichever Node this is.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import test from "node:test";
import * as runwire from "runwire";
import { checks } from "../../tests/browser/client.mjs";
import { url } from "./gateway.mjs";

for (const [sentence, check] of Object.entries(checks(runwire, url))) test(sentence, check);

test("the package has what the gateway serves, byte by byte", async () => {
  const served = await (await fetch(new URL("/runwire.js", url.replace("ws", "http")))).text();
  assert.equal(await readFile(new URL(import.meta.resolve("runwire")), "utf8"), served);
});
