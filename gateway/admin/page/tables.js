// Listeners, backends, statuses and changes, each as a table that can be searched.

import { el, link, name, Rows } from './dom.js'
import { Search } from './finder.js'
import { counting, filterTitle, routeOf, whereOf } from './model.js'
import { routeLink } from './routes.js'

// rows(): [{ key, text, isBroken, print, cells(places) }], of which `cells` gives what stands under each of `heads`.
class Table {
  constructor({ tab, what, hint, heads, rows, empty }) {
    Object.assign(this, { heads, rows, what })
    this.search = new Search(tab, hint, () => this.update(undefined, this.counts))
    const body = el('tbody', { role: 'rowgroup' })
    this.body = new Rows(body)
    this.table = el('table', { role: 'table', 'aria-label': tab },
      el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, heads.map(title => el('th', { role: 'columnheader', scope: 'col' }, title)))), body)
    this.nothing = el('p', { class: 'soft' }, empty)
    this.element = el('div', { class: 'tabled' }, this.search.element, this.table, this.nothing, this.search.more)
  }

  update(_, counts) {
    this.counts = counts
    const rows = this.rows().map(row => ({ ...row, text: row.text.toLowerCase() }))
    const shown = this.search.among(rows, this.what)
    this.body.update(shown.map(row => ({
      key: row.key, print: row.print,
      make: places => el('tr', { role: 'row', 'data-row': row.key }, row.cells(places).map((cell, at) => {
        const made = cell?.tagName === 'TD' ? cell : el('td', {}, cell)
        made.setAttribute('role', 'cell')
        made.setAttribute('data-head', this.heads[at])
        return made
      })),
    })), counts)
    this.table.hidden = this.search.element.hidden = !rows.length
    this.nothing.hidden = rows.length > 0
  }

  forget() {}
  reveal() {}

  write(counts) {
    this.counts = counts
    this.body.write(counts)
  }
}

const of = (state, type) => state.snapshot.parts.filter(part => part.type === type)

export function listenersView(state) {
  const rows = () => {
    const routes = new Map()
    for (const part of state.snapshot.parts) {
      const route = routeOf(part)
      if (route) for (const at of part.at) routes.set(at.listener, (routes.get(at.listener) ?? new Set()).add(route))
    }
    return of(state, 'listener').map(one => {
      const { port, address } = whereOf(one, state.snapshot)
      const problem = state.snapshot.problems.find(found => found.part === one.name)?.message ?? ''
      const count = routes.get(one.name)?.size ?? 0
      return {
        key: one.name, isBroken: Boolean(problem), print: JSON.stringify([one, port, address, problem, count]),
        text: [one.name, address, one.port, one.protocol ?? 'HTTP', one.hostname, problem].join('\n'),
        cells: () => [
          [name(one.name), problem && el('div', { class: 'bad' }, name(problem))],
          [el('code', {}, name(address)), port !== one.port && el('div', { class: 'soft' }, `port ${one.port} as written`)],
          `${one.protocol ?? 'HTTP'}${one.passthrough ? ' (passthrough)' : ''}`, name(one.hostname || '*'), counting(count, 'route'),
          (one.filters ?? []).map(filter => el('div', {}, el('a', { href: link('filters', filter.script) }, name(filterTitle(filter.script))))),
        ],
      }
    })
  }
  return new Table({ tab: 'listeners', what: 'listener', hint: 'Name, port, hostname', heads: ['listener', 'address', 'protocol', 'hostname', 'routes', 'filters'], rows, empty: 'No listener is in force.' })
}

export function backendsView(state) {
  const rows = () => of(state, 'backend').map(one => {
    const endpoints = (one.endpoints ?? []).map(endpoint => `${endpoint.address}:${endpoint.port}${endpoint.pod ? ` (${endpoint.pod})` : ''}`)
    return {
      key: one.name, isBroken: !endpoints.length, print: JSON.stringify(one), text: [one.name, one.protocol, ...endpoints].join('\n'),
      cells: places => [
        name(one.name), `${one.protocol ?? 'http'}${one.tls ? ' over TLS' : ''}`,
        endpoints.length ? endpoints.map(words => el('div', {}, name(words))) : el('span', { class: 'bad' }, 'none is ready: 503'),
        places.put(el('td', { class: 'bad' }), counts => [...counts.ejected.get(one.name) ?? []].join(', ')),
      ],
    }
  })
  return new Table({ tab: 'backends', what: 'backend', hint: 'Name, address, pod', heads: ['backend', 'protocol', 'endpoints', 'stand aside'], rows, empty: 'No backend is in force.' })
}

export function statusesView(state) {
  const rows = () => state.statuses.map((one, at) => {
    const words = [
      ...one.conditions.map(condition => [`${condition.type}=${condition.status} (${condition.reason})`, condition.message, condition.healthy]),
      ...one.remarks.map(remark => ['leads nowhere', remark, false]),
    ]
    return {
      key: `${one.object} ${at}`, isBroken: words.some(([, , healthy]) => !healthy), print: JSON.stringify(one), text: [one.object, ...words.flat()].join('\n'),
      cells: () => [
        name(one.object),
        el('dl', { class: 'conditions' }, words.map(([condition, message, healthy]) => [el('dt', { class: healthy ? 'good' : 'bad' }, name(condition)), el('dd', {}, name(message))])),
      ],
    }
  })
  return new Table({ tab: 'statuses', what: 'status', hint: 'Object, condition, reason, message', heads: ['object', 'conditions'], rows, empty: 'Statuses are on the objects: kubectl describe shows them.' })
}

export function changesView(state) {
  const rows = () => state.changes.map(change => ({
    key: `${change.at} ${change.version}`, isBroken: false, print: '', text: change.parts.join('\n'),
    cells: () => [new Date(change.at * 1000).toLocaleTimeString(), `${change.milliseconds.toFixed(1)} ms`, change.parts.flatMap((part, at) => [at ? ', ' : '', ...linkedPart(part, state)])],
  }))
  const made = new Table({ tab: 'changes', what: 'change', hint: 'What has changed', heads: ['in force at', 'took', 'what'], rows, empty: 'Nothing has changed since this page was opened.' })
  made.search.onlyBroken.parentElement.hidden = true // what came into force is not broken
  return made
}

// "rule default/shop/0", with a way to the route where it is still there.
function linkedPart(part, state) {
  const route = routeOf(state.parts.get(part) ?? {})
  return route ? [routeLink(route), ` rules[${part.split('/').at(-1)}]`] : name(part)
}
