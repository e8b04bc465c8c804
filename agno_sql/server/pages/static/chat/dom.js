// Elements. Text is always text: nothing here, and nothing that uses it, makes HTML of a string.

export const $ = (id) => document.getElementById(id);

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") element.addEventListener("click", value);
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Let the screen reader say *text* when it has a moment. */
export function say(text) {
  const spoken = $("spoken");
  spoken.append(h("p", {}, text));
  while (spoken.children.length > 5) spoken.firstChild.remove();
}
