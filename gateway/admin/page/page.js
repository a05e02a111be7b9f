// The page: what is in force, brought up to date when a change comes into force or something is said of what was written;
// counts, written anew each second while somebody looks. What has not changed is left as it stands.

import { el, fill, linked } from './dom.js'
import { filtersView } from './filters.js'
import { byObject, counted, counting, number } from './model.js'
import { Problems } from './problems.js'
import { routesView } from './routes.js'
import { backendsView, changesView, listenersView, statusesView } from './tables.js'

const $ = id => document.getElementById(id)
const VIEWS = { routes: routesView, filters: filtersView, listeners: listenersView, backends: backendsView, statuses: statusesView, changes: changesView }
const nothing = { version: '', parts: [], problems: [] }
const state = {
  // What the server said last.
  snapshot: nothing, statuses: [], sources: [], faults: [], counts: undefined, changes: [],
  // What that comes to: parts by "TYPE NAME", backends by name, faults by object.
  parts: new Map(), backends: new Map(), faultsOf: new Map(),
  // Of whoever looks: the key to edit, and what became of the last save.
  key: takeKey(), said: undefined, redraw: () => { view?.forget(); draw() }, refresh,
}
const problems = new Problems($('problems'))
const tabs = Object.keys(VIEWS).map(one => [one, el('a', { href: `#${one}` }, one[0].toUpperCase() + one.slice(1))])
let view, current

// The key to edit comes behind the #, which browsers send to nobody; it is kept for this tab only.
function takeKey() {
  const found = /^#key=([\w-]+)$/.exec(location.hash)
  if (found) {
    sessionStorage.setItem('key', found[1])
    history.replaceState(null, '', '#routes')
  }
  return sessionStorage.getItem('key')
}

const missing = new Set() // what this gateway does not have: it is asked for once
async function read(path, otherwise) {
  if (missing.has(path)) return otherwise
  const answer = await fetch(path)
  if (answer.ok) return answer.json()
  if (otherwise === undefined) throw new Error(`${path}: ${answer.status}`)
  if (answer.status === 404) missing.add(path)
  return otherwise
}

async function readAll() {
  const [snapshot, statuses, sources, faults] = await Promise.all([read('snapshot'), read('status', []), read('filters', []), read('faults', null)])
  const parts = new Map(snapshot.parts.map(part => [`${part.type} ${part.name}`, part]))
  const backends = new Map(snapshot.parts.filter(part => part.type === 'backend').map(part => [part.name, part]))
  const known = faults ?? snapshot.problems.map(problem => ({ file: '', line: 0, object: problem.part, field: '', message: problem.message }))
  Object.assign(state, { snapshot, statuses, sources, faults: known, parts, backends, faultsOf: byObject(known) })
  lost(false)
  draw()
}

// One at a time: what happens meanwhile is read once that has come.
let reading, isDue = false
function refresh() {
  isDue = true
  reading ??= (async () => { while (isDue) { isDue = false; await readAll() } })().finally(() => { reading = undefined })
  return reading
}

let isCounting = false
async function count() {
  if (document.hidden || isCounting) return
  isCounting = true
  try { state.counts = counted(await read('statistics'), state.counts) } finally { isCounting = false }
  const { total, connections, workers, unmatched, refused } = state.counts
  const words = `${number(total.rate)} requests/s, ${counting(connections, 'connection')}, ${counting(workers, 'worker')}, ${number(unmatched)} without a rule, ${number(refused)} refused`
  if ($('totals').textContent !== words) $('totals').textContent = words
  view?.write(state.counts)
}

function draw() {
  const [tab, name] = linked(location.hash)
  const wanted = tab in VIEWS ? tab : 'routes'
  if (wanted !== current) {
    current = wanted
    view = VIEWS[current](state)
    fill($('view'), view.element) // before it is filled: it measures itself
    for (const [one, element] of tabs) {
      if (one === current) element.setAttribute('aria-current', 'page')
      else element.removeAttribute('aria-current')
    }
  }
  problems.update(state.faults)
  view.update(name, state.counts)
}

function lost(is = true) {
  $('lost').textContent = is ? 'The gateway does not answer. What stands here is what it said last.' : ''
}

fill($('tabs'), tabs.map(([, element]) => element))
$('skip').addEventListener('click', () => $('view').focus())
addEventListener('hashchange', () => {
  const before = view
  draw()
  if (view === before) view.reveal()
  else scrollTo(0, 0)
})
const events = new EventSource('events')
events.onopen = () => refresh().then(count).catch(() => lost()) // at first, and whatever was missed while nobody listened
events.onmessage = message => {
  state.changes = [JSON.parse(message.data), ...state.changes].slice(0, 50)
  refresh().catch(() => lost())
}
events.addEventListener('told', () => refresh().catch(() => lost()))
events.onerror = () => lost()
setInterval(() => count().catch(() => lost()), 1000)
