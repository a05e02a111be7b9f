// Elements made of values. Text is text: nothing that a file or a client says is ever read as HTML.

const shown = children => children.flat(Infinity).filter(child => child != null && child !== false && child !== '')

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value)
    else if (value !== false && value != null) made.setAttribute(name, value === true ? '' : value)
  }
  made.append(...shown(children))
  return made
}

export const fill = (parent, ...children) => parent.replaceChildren(...shown(children))

// A long name with places where a line may end: behind its parts, and only then in the middle of one (page.css). The numbers of
// an address stay together.
export function name(text) {
  const parts = `${text}`.split(/(?<=[-./:,_@#])(?=[^-./:,_@#])(?!(?<=\d\.)\d)/)
  return parts.flatMap((part, at) => at ? [document.createElement('wbr'), part] : [part])
}

export const link = (tab, to) => `#${tab}/${encodeURIComponent(to).replaceAll('%2F', '/').replaceAll('%20', '+')}`
export const linked = hash => {
  const [tab, to] = hash.replace(/^#/, '').split(/\/(.*)/s)
  try { return [tab, to && decodeURIComponent(to.replaceAll('+', ' '))] } catch { return [tab, to] }
}

// Places whose text is written anew while the page stands: `write` is called with the latest counts, and gives the text.
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

// Children of an element, by key. What is as it was stays in the page, with the focus and the selection in it.
export class Rows {
  #rows = new Map()
  #parent
  constructor(parent) { this.#parent = parent }

  // items: [{ key, print, make }]: `make(places)` gives the element, once and whenever `print` has changed.
  update(items, counts) {
    const rows = new Map()
    for (const item of items) {
      const before = this.#rows.get(item.key)
      if (before?.print === item.print) { rows.set(item.key, before); continue }
      const places = new Places()
      const row = { print: item.print, element: item.make(places), places }
      if (counts) places.write(counts)
      if (before) before.element.replaceWith(row.element)
      rows.set(item.key, row)
    }
    for (const [key, row] of this.#rows) if (!rows.has(key)) row.element.remove()
    let next = this.#parent.firstChild
    for (const { element } of rows.values()) {
      if (element === next) next = next.nextSibling
      else this.#parent.insertBefore(element, next)
    }
    this.#rows = rows
  }

  write(counts) { for (const { places } of this.#rows.values()) places.write(counts) }
  get(key) { return this.#rows.get(key)?.element }
  *[Symbol.iterator]() { for (const [key, { element }] of this.#rows) yield [key, element] }
}
