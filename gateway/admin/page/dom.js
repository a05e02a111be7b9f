// Elements made of values. Text is text: nothing that a file or a client says is ever read as HTML.

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value)
    else if (value !== false && value != null) made.setAttribute(name, value === true ? '' : value)
  }
  made.append(...children.flat(Infinity).filter(child => child != null && child !== false && child !== ''))
  return made
}

export const fill = (parent, ...children) => parent.replaceChildren(...children.flat(Infinity).filter(child => child != null && child !== false && child !== ''))

// A place whose text is written anew while the page stands: `places.get(key)` is called with the latest counts.
export class Places {
  #all = []
  put(element, write) { this.#all.push([element, write]); return element }
  clear() { this.#all = [] }
  write(counts) {
    for (const [element, write] of this.#all) {
      const text = write(counts, element)
      if (text !== undefined && element.textContent !== text) element.textContent = text
    }
  }
}
