// Binary frames: the contract's protobuf, written and read by hand, so that one can see what they are.

const TEXT = new TextEncoder();
const [VARINT, FIXED64, BYTES, FIXED32] = [0, 1, 2, 5];

/** A first frame that joins a run again, as a ClientFrame: access_token = 1, resume = 11 (run_id = 1, after_seq = 2). */
export function resumeFrame({ runId, afterSeq = 0, token }) {
  const resume = [...field(1, TEXT.encode(runId)), ...(afterSeq ? [0x10, ...varint(afterSeq)] : [])];
  return new Uint8Array([...(token ? field(1, TEXT.encode(token)) : []), ...field(RESUME, resume)]);
}

const RESUME = 11;

function field(number, bytes) {
  return [...varint(number * 8 + BYTES), ...varint(bytes.length), ...bytes];
}

function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return [...bytes, value];
}

/** What is in a message, line by line: each field's number, with its text, its number, or what is in it. */
export function outline(bytes, indent = "") {
  return (fieldsOf(bytes) ?? []).flatMap(({ number, value }) => {
    if (!(value instanceof Uint8Array)) return [`${indent}${number}: ${value}`];
    const text = asText(value);
    if (text !== null) return [`${indent}${number}: ${JSON.stringify(text)}`];
    const inner = fieldsOf(value) && outline(value, `${indent}  `);
    return inner ? [`${indent}${number} {`, ...inner, `${indent}}`] : [`${indent}${number}: ${value.length} bytes`];
  });
}

/** The fields of a message; null for bytes that are none. */
function fieldsOf(bytes) {
  const found = [];
  let at = 0;
  const number = () => {
    let value = 0;
    for (let factor = 1; at < bytes.length; factor *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
    return NaN;
  };
  while (at < bytes.length) {
    const key = number();
    const size = { [FIXED64]: 8, [FIXED32]: 4, [BYTES]: 0, [VARINT]: 0 }[key % 8];
    if (!(key >= 8) || size === undefined) return null;
    if (key % 8 === VARINT) found.push({ number: key >> 3, value: number() });
    else {
      const length = size || number();
      if (!(at + length <= bytes.length)) return null;
      const value = bytes.subarray(at, at + length);
      found.push({ number: key >> 3, value: size === 8 ? new DataView(value.slice().buffer).getFloat64(0, true) : value });
      at += length;
    }
    if (Number.isNaN(found.at(-1).value)) return null;
  }
  return found;
}

function asText(bytes) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return /^[\P{Cc}\n\t\r]*$/u.test(text) ? text : null;
  } catch {
    return null;
  }
}

/** Bytes as one reads them: sixteen in a line, and beside them the letters among them. */
export function hex(bytes, most = 512) {
  const lines = [];
  for (let at = 0; at < Math.min(bytes.length, most); at += 16) {
    const row = [...bytes.subarray(at, Math.min(at + 16, most))];
    const numbers = row.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const letters = row.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : "·")).join("");
    lines.push(`${at.toString(16).padStart(4, "0")}  ${numbers.padEnd(47)}  ${letters}`);
  }
  if (bytes.length > most) lines.push(`… and ${bytes.length - most} bytes more`);
  return lines.join("\n");
}
