// What the tests of each entry share: the gateway that whoever runs them has started, with triage and the tests' agents.
import assert from "node:assert/strict";

export const url = process.env.RUNWIRE_URL;
assert.ok(url, "RUNWIRE_URL names a gateway's stream: make clients starts one");

/** Waits until something is so. */
export async function until(condition, patience = 20_000) {
  for (const end = Date.now() + patience; ; await new Promise((resolve) => setTimeout(resolve, 10))) {
    const found = await condition();
    if (found) return found;
    assert.ok(Date.now() < end, `it never came to be: ${condition}`);
  }
}

/** A place for positions that ends with the test. */
export function storage() {
  const kept = new Map();
  return {
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => kept.set(key, value),
    removeItem: (key) => kept.delete(key),
    kept,
  };
}
