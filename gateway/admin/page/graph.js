// A route as a graph: listeners → matches → filters → split → backends, with what passes along each edge. Where there is no
// room for five columns they stand one below the other (page.css).

import { el, link, name } from './dom.js'
import { backendOf, duration, filterTitle, hostnamesOf, number, quantile, spoken, spokenMatch, whereOf } from './model.js'

const SVG = 'http://www.w3.org/2000/svg'
const COLUMNS = ['Listener', 'Match', 'Filters', 'Split', 'Backends']

export function drawRoute(route, state, places) {
  const edges = []
  const graph = el('div', { class: 'graph', role: 'group', 'aria-label': `${route.key}: from listeners to backends`, 'data-route': route.key })
  for (const title of COLUMNS) graph.append(el('div', { class: 'column', 'aria-hidden': 'true' }, title))
  const listeners = new Map()
  for (const one of new Set(route.rules.flatMap(rule => rule.at.map(at => at.listener)))) listeners.set(one, drawListener(one, state))
  const front = cell(0, '', [...listeners.values()])
  front.style.gridRow = `2 / span ${route.rules.length}`
  graph.append(front)
  route.rules.forEach((rule, at) => drawRule(rule, route, at, state, listeners, graph, edges, places))
  const lines = document.createElementNS(SVG, 'svg')
  lines.setAttribute('aria-hidden', 'true')
  graph.append(lines)
  const paths = edges.map(edge => {
    const path = document.createElementNS(SVG, 'path')
    if (edge.broken) path.classList.add('broken')
    lines.append(path)
    places.put(path, counts => thicken(path, edge, counts))
    return [path, edge]
  })
  follow(graph, () => layOut(graph, lines, paths))
  return graph
}

// A cell of a column. What it holds stays in sight while the page scrolls past a taller neighbour.
function cell(column, of, nodes) {
  return el('div', { class: `cell ${nodes.length ? '' : 'empty'}`, role: 'group', 'aria-label': `${COLUMNS[column]}${of}`, 'data-column': COLUMNS[column] },
    el('div', { class: 'stay' }, nodes))
}

function drawListener(key, state) {
  const part = state.parts.get(`listener ${key}`)
  const problem = state.snapshot.problems.find(one => one.part === key)
  const where = part && whereOf(part, state.snapshot)
  return el('div', { class: `node ${part && !problem ? '' : 'broken'}`, 'data-node': `listener ${key}` }, name(key),
    part && el('code', {}, name(where.address)),
    el('small', {}, part ? [part.protocol ?? 'HTTP', ' ', name(part.hostname || '*')] : 'is not served here'),
    part && where.port !== part.port && el('small', {}, `port ${part.port} as written`),
    problem && el('small', { class: 'bad' }, problem.message),
    (part?.filters ?? []).map(filter => scripted(filter.script)))
}

function drawRule(rule, route, at, state, listeners, graph, edges, places) {
  const isRelay = rule.type === 'relay'
  const of = route.rules.length > 1 ? ` of rules[${rule.order[2] ?? at}]` : ''
  const flow = counts => counts.rules.get(rule.name)?.rate ?? 0
  const matched = el('div', { class: 'node', 'data-node': `rule ${rule.name}` },
    of && el('small', {}, of.slice(4)),
    isRelay ? el('code', {}, 'every connection') : (rule.matches ?? [{}]).map(match => spokenMatch(match).map(line => el('code', {}, name(line)))),
    el('small', {}, hostnamesOf(rule).flatMap((host, at) => [at ? ', ' : '', name(host)])),
    places.put(el('small', { class: 'live', 'data-count': rule.name }), (counts, element) => told(counts.rules.get(rule.name), element, isRelay)))
  for (const one of new Set(rule.at.map(at => at.listener))) edges.push({ from: listeners.get(one), to: matched, flow })
  let last = matched
  const chain = (rule.filters ?? []).map(filter => {
    const node = drawFilter(filter, places)
    edges.push({ from: last, to: node, flow, isDown: last !== matched })
    return last = node
  })
  const targets = rule.targets ?? []
  const all = targets.reduce((sum, target) => sum + (target.weight ?? 1), 0)
  const split = []
  if (targets.length > 1) {
    const node = el('div', { class: 'node', 'data-node': `split ${rule.name}` }, targets.map(target => target.weight ?? 1).join(' : '), rule.persistence && el('small', {}, 'sessions stay where they began'))
    edges.push({ from: last, to: node, flow })
    split.push(last = node)
  }
  const ends = targets.map(target => {
    const [node, busy] = drawTarget(rule, target, all, state, places, isRelay)
    edges.push({ from: last, to: node, flow: busy, broken: Boolean(target.fault) })
    return node
  })
  graph.append(cell(1, of, [matched]), cell(2, of, chain), cell(3, of, split), cell(4, of, ends))
}

function scripted(script) {
  return el('small', {}, el('a', { href: link('filters', script) }, name(filterTitle(script))))
}

function drawFilter(filter, places) {
  const [title, details] = spoken(filter)
  const small = details.filter(Boolean).map(text => el('small', { class: filter.type === 'Fault' ? 'bad' : '' }, name(text)))
  if (filter.type !== 'Script') return el('div', { class: `node ${filter.type === 'Fault' ? 'broken' : ''}`, 'data-node': `filter ${title}` }, title, small)
  return el('a', { class: 'node', href: link('filters', filter.script), 'data-node': `filter ${filter.script}` }, name(title),
    places.put(el('small', { class: 'live' }), (counts, element) => {
      const one = counts.filters.get(filter.script)
      element.classList.toggle('idle', !one?.rate)
      return one ? `${number(one.calls)} calls${one.failures ? `, ${number(one.failures)} failed` : ''}` : 'not loaded'
    }))
}

function drawTarget(rule, target, all, state, places, isRelay) {
  const to = backendOf(target)
  const counted = counts => counts.targets.get(`${rule.name} ${to}`)
  const weight = target.weight ?? 1
  const endpoints = state.parts.get(`backend ${target.backend}`)?.endpoints ?? []
  const isDead = target.fault || (target.backend && !endpoints.length)
  const node = el('div', { class: `node ${isDead ? 'broken' : ''}`, 'data-node': `backend ${to || target.fault || ''}` },
    to ? name(to) : !target.fault && 'answered by a filter',
    target.fault ? el('small', { class: 'bad' }, `${isRelay ? 'refused' : target.fault}: `, name(target.reason ?? ''))
      : target.backend && el('small', { class: endpoints.length ? '' : 'bad' }, endpoints.length ? name(endpointsOf(state.parts.get(`backend ${target.backend}`))) : `no endpoint is ready${isRelay ? '' : ': 503'}`),
    target.backend && places.put(el('small', { class: 'bad' }), counts => [...counts.ejected.get(target.backend) ?? []].map(one => `${one} stands aside`).join(', ')),
    (target.filters ?? []).map(filter => filter.type === 'Script' ? scripted(filter.script) : el('small', {}, spoken(filter)[0])),
    el('small', {}, all ? `${percent(weight / all)} %` : 'no weight in this rule'),
    places.put(el('small', { class: 'live', 'data-count': `${rule.name} ${to}` }), (counts, element) => told(counted(counts), element, isRelay)),
    !isRelay && places.put(el('small'), counts => took(counted(counts))))
  return [node, counts => counted(counts)?.rate ?? 0]
}

// A share that is not nothing does not look like nothing.
const percent = share => share > 0 && share < .001 ? '< 0.1' : number(share * 100)

function endpointsOf(backend) {
  const [first, ...others] = backend.endpoints
  const how = [backend.protocol && backend.protocol !== 'http' && backend.protocol, backend.tls && 'TLS'].filter(Boolean).join(' ')
  return `${first.address}:${first.port}${others.length ? ` and ${others.length} more` : ''}${how ? ` (${how})` : ''}`
}

function told(one, element, isRelay) {
  element.classList.toggle('idle', !one?.rate)
  if (!one?.requests) return isRelay ? 'no connections yet' : 'no requests yet'
  return `${number(one.requests)}${one.failed ? ` (${number(one.failed)} ${isRelay ? 'refused' : 'failed'})` : ''}, ${number(one.rate)}/s`
}

const took = one => one?.requests ? `p50 < ${duration(quantile(one.slots, .5))}, p99 < ${duration(quantile(one.slots, .99))}` : ''

function thicken(path, edge, counts) {
  const rate = edge.flow(counts)
  path.classList.toggle('busy', rate > 0)
  const width = `${rate > 0 ? Math.min(1.5 + Math.log10(1 + rate) * 1.6, 9).toFixed(1) : 1.5}`
  if (path.getAttribute('stroke-width') !== width) path.setAttribute('stroke-width', width)
}

// Lay out when the graph, a part of it or what stands above it changes its size, and, where parts stay in sight, when the page
// scrolls.
function follow(graph, layOut) {
  let isDue = false
  const scrolled = () => {
    if (!graph.isConnected) return removeEventListener('scroll', scrolled)
    if (isDue || graph.offsetHeight < innerHeight / 2) return
    isDue = true
    requestAnimationFrame(() => { isDue = false; layOut() })
  }
  addEventListener('scroll', scrolled, { passive: true })
  const sizes = new ResizeObserver(() => { if (graph.isConnected) layOut(); else sizes.disconnect() })
  for (const one of [document.body, graph, ...graph.querySelectorAll('.stay')]) sizes.observe(one)
}

function layOut(graph, lines, paths) {
  if (getComputedStyle(lines).display === 'none') return
  const ground = graph.getBoundingClientRect()
  const boxes = new Map()
  const box = node => boxes.get(node) ?? boxes.set(node, node.getBoundingClientRect()).get(node)
  const drawn = paths.map(([path, { from, to, isDown }]) => {
    const a = box(from), b = box(to)
    const x = -ground.left, y = -ground.top
    if (isDown) return [path, `M ${a.left + a.width / 2 + x} ${a.bottom + y} V ${b.top + y}`]
    const [x1, y1, x2, y2] = [a.right + x, a.top + a.height / 2 + y, b.left + x, b.top + b.height / 2 + y]
    const bend = Math.max((x2 - x1) / 2, 12)
    return [path, `M ${x1} ${y1} C ${x1 + bend} ${y1}, ${x2 - bend} ${y2}, ${x2} ${y2}`]
  })
  for (const [path, d] of drawn) path.setAttribute('d', d)
}
