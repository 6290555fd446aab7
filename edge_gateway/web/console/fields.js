// Fields of a form, made from a schema: of what an agent asks, and of what may be sent along.
import { element } from "./elements.js";

const KINDS = new Set(["string", "number", "integer", "boolean"]);

/** A label and an input for each field, in the order in which they are required; then the others. */
export function fieldsOf(schema) {
  const properties = isMap(schema?.properties) ? schema.properties : {};
  const required = Array.isArray(schema?.required) ? schema.required : [];
  const names = new Set([...required.filter((name) => Object.hasOwn(properties, name)), ...Object.keys(properties)]);
  return [...names].map((name) => fieldOf(name, isMap(properties[name]) ? properties[name] : {}, required.includes(name)));
}

function isMap(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** What fields say, by their names: of one that says nothing, nothing. Throws for what is no JSON where it has to be. */
export function contentOf(fields) {
  const given = fields.map(({ name, value }) => [name, value()]).filter(([, value]) => value !== undefined);
  return given.length ? Object.fromEntries(given) : undefined;
}

function fieldOf(name, about, isRequired) {
  const kind = Array.isArray(about.enum) ? "enum" : KINDS.has(about.type) ? about.type : "json";
  const { input, value, show } = MAKERS[kind](about, isRequired);
  if (kind !== "boolean") input.required = isRequired;
  input.name = name;
  if (about.default !== undefined) show(about.default);
  const words = element("span", {}, String(about.title ?? name));
  const more = about.description && element("small", {}, String(about.description));
  const label = element("label", { className: kind === "boolean" ? "flag" : "" }, words, input, more ?? "");
  const said = () => (input.value === "" && !isRequired && kind !== "boolean" ? undefined : value());
  return { name, label, value: said, show };
}

const MAKERS = {
  boolean: () => {
    const input = element("input", { type: "checkbox" });
    return { input, value: () => input.checked, show: (value) => (input.checked = value === true) };
  },
  enum: ({ enum: values }, isRequired) => {
    const input = element("select", {}, ...(isRequired ? [] : [new Option("", "")]));
    for (const [index, value] of values.entries()) {
      const option = new Option(String(value), String(value));
      option.dataset.index = index;
      input.append(option);
    }
    const value = () => values[input.selectedOptions[0].dataset.index];
    return { input, value, show: (value) => (input.value = String(value)) };
  },
  string: ({ minLength, maxLength }) => {
    const input = element("input", { type: "text", autocomplete: "off" });
    if (isLength(maxLength)) input.maxLength = maxLength;
    if (isLength(minLength) && !(input.maxLength >= 0 && minLength > input.maxLength)) input.minLength = minLength;
    return { input, value: () => input.value, show: (value) => (input.value = value) };
  },
  number: ({ minimum, maximum }) => number("any", minimum, maximum),
  integer: ({ minimum, maximum }) => number("1", minimum, maximum),
  json: () => {
    const input = element("input", { type: "text", autocomplete: "off", spellcheck: false, placeholder: "JSON" });
    return { input, value: () => JSON.parse(input.value), show: (value) => (input.value = JSON.stringify(value)) };
  },
};

function number(step, min, max) {
  const input = element("input", { type: "number", step, ...known({ min, max }) });
  return { input, value: () => Number(input.value), show: (value) => (input.value = value) };
}

/** Whether a browser can keep to it. */
function isLength(bound) {
  return Number.isInteger(bound) && bound >= 0 && bound < 2 ** 31;
}

function known(properties) {
  return Object.fromEntries(Object.entries(properties).filter(([, value]) => value !== undefined));
}
