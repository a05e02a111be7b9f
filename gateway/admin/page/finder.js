// A list to choose from, with a search, a switch for what is broken, and as many entries as asked for; and what was chosen.

import { el, fill, link, name, Places, Rows } from './dom.js'
import { counting, number } from './model.js'

const STEP = 200 // entries that are shown at first, and more of them at each press

// What is looked for under each tab: it stays while somebody looks elsewhere.
const asked = new Map()
const askedOf = tab => asked.get(tab) ?? asked.set(tab, { words: '', onlyBroken: false, shown: STEP }).get(tab)

// The search above a list or a table. `changed` is called when something else is to be shown.
export class Search {
  constructor(tab, hint, changed) {
    this.asked = askedOf(tab)
    const again = edit => { edit(); this.asked.shown = STEP; changed() }
    this.input = el('input', { type: 'search', placeholder: hint, 'aria-label': `find ${tab}`, autocomplete: 'off', spellcheck: 'false', oninput: event => again(() => { this.asked.words = event.target.value }) })
    this.input.value = this.asked.words
    this.onlyBroken = el('input', { type: 'checkbox', onchange: event => again(() => { this.asked.onlyBroken = event.target.checked }) })
    this.onlyBroken.checked = this.asked.onlyBroken
    this.broken = el('span', {}, 'Only what is broken')
    this.found = el('p', { class: 'found', role: 'status' })
    this.more = el('button', { type: 'button', class: 'plain more', hidden: true, onclick: () => { this.asked.shown += STEP; changed() } })
    this.element = el('div', { class: 'search', role: 'search' }, this.input, el('label', {}, this.onlyBroken, this.broken), this.found)
  }

  // Those of the items ({ text, isBroken }) that are asked for, and of these the ones to show.
  among(items, what) {
    const words = this.asked.words.toLowerCase().split(/\s+/).filter(Boolean)
    const found = items.filter(item => (!this.asked.onlyBroken || item.isBroken) && words.every(word => item.text.includes(word)))
    const shown = found.slice(0, this.asked.shown)
    const left = found.length - shown.length
    fill(this.broken, `Only what is broken (${number(items.filter(item => item.isBroken).length)})`)
    fill(this.found, found.length === items.length ? counting(items.length, what) : `${number(found.length)} of ${counting(items.length, what)}`, left > 0 && `, the first ${number(shown.length)} shown`)
    this.more.hidden = left <= 0
    fill(this.more, `Show ${number(Math.min(left, STEP))} more of ${number(left)}`)
    return shown
  }
}

// items(): [{ name, title, print, text, isBroken, small(places) }]; draw(item, places) gives what stands beside the list,
// anew when `chosenPrint(item)` has changed.
export class Finder {
  constructor({ tab, what, hint, items, chosenPrint, draw, empty }) {
    Object.assign(this, { tab, what, items, chosenPrint, draw, empty })
    this.search = new Search(tab, hint, () => this.update(this.wanted, this.counts))
    this.list = el('nav', { class: 'list', 'aria-label': tab, onkeydown: event => this.#step(event) })
    this.rows = new Rows(this.list)
    this.detail = el('div', { class: 'detail' })
    this.places = new Places()
    this.element = el('div', { class: 'sides' }, el('div', { class: 'finder' }, this.search.element, el('div', { class: 'scrolled' }, this.list, this.search.more)), this.detail)
    this.search.input.addEventListener('keydown', event => this.#step(event))
  }

  update(wanted, counts) {
    this.wanted = wanted
    this.counts = counts
    const items = this.items()
    const shown = this.search.among(items, this.what)
    const chosen = wanted ? items.find(item => item.name === wanted) ?? items.find(item => item.title === wanted) : shown[0]
    this.rows.update(shown.map(item => ({
      key: item.name, print: item.print,
      make: places => el('a', { href: link(this.tab, item.name) }, el('span', {}, name(item.title)), item.small(places)),
    })), counts)
    for (const [key, element] of this.rows) {
      if (key === chosen?.name) element.setAttribute('aria-current', 'true')
      else element.removeAttribute('aria-current')
    }
    if (chosen?.name !== this.inSight) this.#bringIntoSight(this.rows.get(this.inSight = chosen?.name))
    this.#show(chosen, counts)
  }

  #show(chosen, counts) {
    const missing = this.wanted ? `“${this.wanted}” is not there, or not any more.` : this.search.asked.words || this.search.asked.onlyBroken ? 'Nothing is found. Fewer words may do.' : this.empty
    const print = chosen ? this.chosenPrint(chosen) : missing
    if (print === this.printed) return
    this.printed = print
    this.places.clear()
    const kept = focusIn(this.detail)
    fill(this.detail, chosen ? this.draw(chosen, this.places) : el('p', { class: 'soft' }, missing))
    kept(this.detail)
    if (counts) this.places.write(counts)
  }

  // In the list, without moving the page.
  #bringIntoSight(row) {
    if (!row) return
    const box = this.list.parentElement, from = row.offsetTop - this.list.offsetTop
    if (from < box.scrollTop || from + row.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = from - box.clientHeight / 3
  }

  forget() { this.printed = undefined }

  write(counts) {
    this.counts = counts
    this.rows.write(counts)
    this.places.write(counts)
  }

  // Where there is no room for both, what was chosen stands below the list.
  reveal() { if (this.detail.offsetTop > this.element.offsetTop + 1) this.detail.scrollIntoView({ block: 'start' }) }

  #step(event) {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key]
    if (!by || event.altKey || event.ctrlKey || event.metaKey) return
    const all = [...this.list.children]
    const to = all.indexOf(document.activeElement) + by
    event.preventDefault()
    ;(to < 0 ? this.search.input : all[to] ?? (this.search.more.hidden ? all.at(-1) : this.search.more))?.focus()
  }
}

// What has the focus within an element that is drawn anew: gives a function that finds it again.
function focusIn(element) {
  const { activeElement } = document
  if (!element.contains(activeElement)) return () => {}
  const by = ['data-node', 'aria-label', 'href'].find(attribute => activeElement.hasAttribute(attribute))
  const value = by ? activeElement.getAttribute(by) : activeElement.textContent
  const selection = [activeElement.selectionStart, activeElement.selectionEnd]
  return fresh => {
    const again = [...fresh.querySelectorAll('a, button, input, textarea, [tabindex]')].find(one => (by ? one.getAttribute(by) : one.textContent) === value)
    again?.focus({ preventScroll: true })
    if (selection[0] !== undefined && again?.setSelectionRange) again.setSelectionRange(...selection)
  }
}
