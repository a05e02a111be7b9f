// The page: what is in force, drawn anew when a change comes into force; counts, written anew each second while somebody looks.

import { el, fill, Places } from './dom.js'
import { drawFilter, filtersOf, problemOf } from './filters.js'
import { drawRoute } from './graph.js'
import { counted, hostnamesOf, isFailing, number, routesOf, servedAt } from './model.js'

const $ = id => document.getElementById(id)
const places = new Places()
const state = { snapshot: { version: '', parts: [], problems: [] }, statuses: [], sources: [], counts: undefined, changes: [], search: '', key: takeKey(), said: undefined, redraw: () => draw() }

// The key to edit comes behind the #, which browsers send to nobody; it is kept for this tab only.
function takeKey() {
  const found = /^#key=([\w-]+)$/.exec(location.hash)
  if (found) {
    sessionStorage.setItem('key', found[1])
    history.replaceState(null, '', '#routes')
  }
  return sessionStorage.getItem('key')
}

const TABS = { routes: drawRoutes, filters: drawFilters, listeners: drawListeners, backends: drawBackends, statuses: drawStatuses, changes: drawChanges }

async function read(path, otherwise) {
  const answer = await fetch(path)
  if (!answer.ok) {
    if (otherwise === undefined) throw new Error(`${path}: ${answer.status}`)
    return otherwise
  }
  return answer.json()
}

async function refresh() {
  const [snapshot, statuses, sources] = await Promise.all([read('snapshot'), read('status', []), read('filters', [])])
  Object.assign(state, { snapshot, statuses, sources })
  draw()
}

async function count() {
  if (document.hidden) return
  state.counts = counted(await read('statistics'), state.counts)
  places.write(state.counts)
}

function draw() {
  const [tab, name] = location.hash.slice(1).split(/\/(.*)/s)
  const current = tab in TABS ? tab : 'routes'
  const { activeElement } = document
  const typing = activeElement?.tagName === 'TEXTAREA' || activeElement?.type === 'search' ? [activeElement.getAttribute('aria-label'), activeElement.selectionStart, activeElement.selectionEnd] : undefined
  const scrolled = document.querySelector('.list')?.scrollTop
  places.clear()
  fill($('tabs'), Object.keys(TABS).map(one => el('a', { href: `#${one}`, 'aria-current': one === current && 'page' }, one[0].toUpperCase() + one.slice(1))))
  fill($('problems'), state.snapshot.problems.map(problem => el('p', {}, `${problem.part}: ${problem.message}`)))
  places.put($('totals'), counts => `${number(counts.total.rate)} requests/s, ${number(counts.connections)} connections, ${counts.workers} worker${counts.workers === 1 ? '' : 's'}, ${number(counts.unmatched)} without a rule, ${number(counts.refused)} refused`)
  fill($('view'), TABS[current](name && decodeURIComponent(name)))
  if (state.counts) places.write(state.counts)
  if (document.querySelector('.list')) document.querySelector('.list').scrollTop = scrolled ?? 0
  if (typing) {
    const again = document.querySelector(`[aria-label=${JSON.stringify(typing[0])}]`)
    again?.focus({ preventScroll: true })
    again?.setSelectionRange(typing[1], typing[2])
  }
}

// A list to choose from, and what was chosen.
function sides(tab, items, name, draw, empty) {
  const found = items.filter(item => item.text.toLowerCase().includes(state.search.toLowerCase()))
  const chosen = items.find(item => item.name === name) ?? found[0]
  const search = el('input', { type: 'search', placeholder: `Find among ${items.length}`, 'aria-label': `find ${tab}`, value: state.search, oninput: event => { state.search = event.target.value; state.redraw() } })
  const list = el('nav', { class: 'list' }, search, found.slice(0, 500).map(item => el('a', { href: `#${tab}/${encodeURIComponent(item.name)}`, 'aria-current': item === chosen && 'true' }, item.name, item.small)))
  if (found.length > 500) list.append(el('a', { class: 'soft' }, `and ${found.length - 500} more`))
  return el('div', { class: 'sides' }, list, el('div', {}, chosen ? draw(chosen) : el('p', { class: 'soft' }, empty)))
}

function drawRoutes(name) {
  const items = routesOf(state.snapshot.parts).map(route => ({
    name: route.key, route,
    text: `${route.key} ${route.rules.flatMap(hostnamesOf).join(' ')}`,
    small: [
      isFailing(route) && el('small', { class: 'bad' }, 'leads nowhere in part'),
      places.put(el('small'), counts => {
        const of = route.kind === 'relay' ? counts.relays : counts.rules
        return `${number(route.rules.reduce((sum, rule) => sum + (of.get(rule.name)?.rate ?? 0), 0))}/s`
      }),
    ],
  }))
  const drawn = ({ route }) => [
    el('h2', {}, route.name),
    drawRoute(route, state, places),
    state.statuses.filter(one => one.object.split(' ').includes(route.name))
      .flatMap(one => one.conditions.filter(condition => !condition.healthy).map(condition => el('p', { class: 'bad' }, `${one.object}: ${condition.type}: ${condition.message}`))),
  ]
  return sides('routes', items, name, drawn, 'No route is in force.')
}

function drawFilters(name) {
  const items = filtersOf(state).map(filter => ({
    name: filter.name, filter, text: filter.name,
    small: [
      problemOf(filter, state) && el('small', { class: 'bad' }, 'not in force as written'),
      places.put(el('small'), counts => `${number(counts.filters.get(filter.name)?.rate ?? 0)} calls/s`),
    ],
  }))
  return sides('filters', items, name, ({ filter }) => drawFilter(filter, state, places, save), 'No rule has a filter in Python.')
}

async function save(name, text, digest) {
  const answer = await fetch(`filters/${encodeURIComponent(name)}`, {
    method: 'PUT', body: text, headers: { Authorization: `Bearer ${state.key}`, 'If-Match': `"${digest}"`, 'Content-Type': 'text/x-python' },
  }).catch(error => ({ ok: false, status: 0, text: async () => `${error}` }))
  if (!answer.ok) return { written: false, in_force: false, message: (await answer.text()).trim() || `refused: ${answer.status}` }
  const result = { written: true, ...await answer.json() }
  setTimeout(refresh)
  return result
}

const of = type => state.snapshot.parts.filter(part => part.type === type)
const rows = (head, all) => el('table', {}, el('tr', {}, head.map(title => el('th', {}, title))), all.map(row => el('tr', {}, row.map(cell => cell instanceof Node && cell.tagName === 'TD' ? cell : el('td', {}, cell)))))

function drawListeners() {
  return rows(['listener', 'port', 'protocol', 'hostname', 'routes', 'filters'], of('listener').map(one => [
    one.name, `${servedAt(one, state)}`, `${one.protocol ?? 'HTTP'}${one.passthrough ? ' (passthrough)' : ''}`, one.hostname || '*',
    `${new Set([...of('rule'), ...of('relay')].filter(rule => rule.at.some(at => at.listener === one.name)).map(rule => rule.order?.[1] ?? rule.name)).size}`,
    (one.filters ?? []).map(filter => el('a', { href: `#filters/${encodeURIComponent(filter.script)}` }, filter.script, ' ')),
  ]))
}

function drawBackends() {
  return rows(['backend', 'protocol', 'endpoints', 'stand aside'], of('backend').map(one => [
    one.name, `${one.protocol ?? 'http'}${one.tls ? ' over TLS' : ''}`,
    (one.endpoints ?? []).length ? one.endpoints.map(endpoint => `${endpoint.address}:${endpoint.port}${endpoint.pod ? ` (${endpoint.pod})` : ''}`).join(', ') : el('span', { class: 'bad' }, 'none is ready: 503'),
    places.put(el('td', { class: 'bad' }), counts => [...counts.resting.get(one.name) ?? []].join(', ')),
  ]))
}

function drawStatuses() {
  if (!state.statuses.length) return el('p', { class: 'soft' }, 'Statuses are on the objects: kubectl describe shows them.')
  return rows(['object', 'condition', 'message'], state.statuses.flatMap(one => [
    ...one.conditions.map((condition, at) => [
      at ? '' : one.object, el('span', { class: condition.healthy ? '' : 'bad' }, `${condition.type}=${condition.status} (${condition.reason})`), condition.message,
    ]),
    ...(one.remarks ?? []).map((words, at) => [at || one.conditions.length ? '' : one.object, el('span', { class: 'bad' }, 'leads nowhere'), words]),
  ]))
}

function drawChanges() {
  if (!state.changes.length) return el('p', { class: 'soft' }, 'Nothing has changed since this page was opened.')
  return rows(['in force at', 'took', 'what'], state.changes.map(change => [new Date(change.at * 1000).toLocaleTimeString(), `${change.milliseconds.toFixed(1)} ms`, change.parts.join(', ')]))
}

addEventListener('hashchange', () => { state.search = ''; draw() })
const lost = () => fill($('problems'), el('p', {}, 'The gateway does not answer. What stands here is what it said last.'))
const events = new EventSource('events')
events.onopen = () => refresh().then(count).catch(lost) // at first, and whatever was missed while nobody listened
events.onmessage = message => {
  state.changes = [JSON.parse(message.data), ...state.changes].slice(0, 50)
  refresh().catch(lost)
}
events.onerror = lost
setInterval(() => count().catch(lost), 1000)
