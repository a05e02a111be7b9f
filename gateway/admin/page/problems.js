// What is wrong with what was written, at the head of the page: it comes and goes with the faults themselves.

import { el, fill, link, name, Rows } from './dom.js'
import { counting, number } from './model.js'

const STEP = 50 // entries that are shown at first, and more of them at each press
const TITLE = 'FSM Gateway'

export class Problems {
  #shown = STEP
  #faults = []
  constructor(element) {
    this.element = element
    this.heading = el('h2', { id: 'wrong' })
    this.list = el('ul')
    this.rows = new Rows(this.list)
    this.more = el('button', { type: 'button', class: 'plain more', onclick: () => { this.#shown += STEP; this.update(this.#faults) } })
    fill(element, el('details', { open: true }, el('summary', {}, this.heading), el('div', { class: 'scrolled', tabindex: '0', role: 'group', 'aria-labelledby': 'wrong' }, this.list, this.more)))
    this.said = el('p', { class: 'unseen', role: 'status' }) // what is read out when it changes: how many, not all of them
    element.before(this.said)
  }

  // faults: [{ file, line, object, field, message }]
  update(faults) {
    this.#faults = faults
    const words = faults.length ? `${counting(faults.length, 'thing')} ${faults.length === 1 ? 'is' : 'are'} not as written` : ''
    document.title = faults.length ? `(${number(faults.length)}) ${TITLE}` : TITLE
    if (this.said.textContent !== words) this.said.textContent = this.heading.textContent = words
    this.element.hidden = !faults.length
    const shown = faults.slice(0, this.#shown)
    const seen = new Map() // the same fault may stand in a file twice
    this.rows.update(shown.map(fault => {
      const print = JSON.stringify(fault)
      seen.set(print, (seen.get(print) ?? 0) + 1)
      return { key: `${print} ${seen.get(print)}`, print, make: () => entry(fault) }
    }))
    const left = faults.length - shown.length
    this.more.hidden = left <= 0
    fill(this.more, `Show ${number(Math.min(left, STEP))} more of ${number(left)}`)
  }
}

function entry({ file, line, object, field, message }) {
  return el('li', {},
    object && el('strong', {}, linked(object)), object && ' ',
    field && el('code', { class: 'field' }, name(field)), field && ' ',
    file && el('span', { class: 'where' }, name(line ? `${file}:${line}` : file)),
    el('div', { class: 'message' }, name(message)))
}

// An object with a way to where the page shows it.
function linked(object) {
  const route = /^((?:HTTP|GRPC|TLS|TCP|UDP)Route) (?:([^/ ]+)\/)?([^/ ]+)/.exec(object)
  if (route) return el('a', { href: link('routes', `${route[1]} ${route[2] ?? 'default'}/${route[3]}`) }, name(object))
  const filter = /^Filter ([^/ ]+\/[^/ ]+)/.exec(object)
  return filter ? el('a', { href: link('filters', filter[1]) }, name(object)) : name(object)
}
