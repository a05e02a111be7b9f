// A route as a graph: listeners → matches → filters → split → backends, with what passes along each edge.

import { el } from './dom.js'
import { duration, hostnamesOf, number, quantile, servedAt, spoken, spokenMatch } from './model.js'

const SVG = 'http://www.w3.org/2000/svg'

export function drawRoute(route, state, places) {
  const edges = []
  const parts = new Map(state.snapshot.parts.map(part => [`${part.type} ${part.name}`, part]))
  const graph = el('div', { class: 'graph', 'data-route': route.key })
  for (const title of ['Listener', 'Match', 'Filters', 'Split', 'Backends']) graph.append(el('div', { class: 'column' }, title))
  const listeners = new Map()
  const front = el('div', { class: 'cell' })
  front.style.gridRow = `2 / span ${route.rules.length}`
  for (const name of new Set(route.rules.flatMap(rule => rule.at.map(at => at.listener)))) {
    const part = parts.get(`listener ${name}`)
    const node = el('div', { class: `node ${part ? '' : 'broken'}`, 'data-node': `listener ${name}` }, name,
      el('small', {}, part ? `${part.protocol ?? 'HTTP'} :${servedAt(part, state)} ${part.hostname || '*'}` : 'is not served here'),
      (part?.filters ?? []).map(filter => scripted(filter.script)))
    listeners.set(name, node)
    front.append(node)
  }
  graph.append(front)
  for (const rule of route.rules) drawRule(rule, route, parts, listeners, graph, edges, places)
  const lines = document.createElementNS(SVG, 'svg')
  graph.append(lines)
  const paths = edges.map(edge => {
    const path = document.createElementNS(SVG, 'path')
    if (edge.broken) path.classList.add('broken')
    lines.append(path)
    places.put(path, counts => thicken(path, edge, counts))
    return [path, edge]
  })
  new ResizeObserver(() => layOut(graph, lines, paths)).observe(graph)
  return graph
}

function drawRule(rule, route, parts, listeners, graph, edges, places) {
  const isRelay = route.kind === 'relay'
  const ruleCounts = counts => (isRelay ? counts.relays : counts.rules).get(rule.name)
  const flow = counts => ruleCounts(counts)?.rate ?? 0
  const matched = el('div', { class: 'node', 'data-node': `rule ${rule.name}` },
    isRelay ? el('code', {}, 'every connection') : (rule.matches ?? [{}]).map(match => spokenMatch(match).map(line => el('code', {}, line))),
    el('small', {}, hostnamesOf(rule).join(', ')),
    places.put(el('small', { class: 'live', 'data-count': rule.name }), (counts, element) => told(ruleCounts(counts), element, isRelay)))
  for (const name of new Set(rule.at.map(at => at.listener))) edges.push({ from: listeners.get(name), to: matched, flow })
  let last = matched
  const chain = el('div', { class: 'cell' })
  for (const filter of rule.filters ?? []) {
    const node = drawFilter(filter, places)
    edges.push({ from: last, to: node, flow, isDown: last !== matched })
    chain.append(node)
    last = node
  }
  const targets = rule.targets ?? []
  const all = targets.reduce((sum, target) => sum + (target.weight ?? 1), 0)
  const split = el('div', { class: 'cell' })
  if (targets.length > 1) {
    const node = el('div', { class: 'node', 'data-node': `split ${rule.name}` }, targets.map(target => target.weight ?? 1).join(' : '), rule.persistence && el('small', {}, 'sessions stay where they began'))
    edges.push({ from: last, to: node, flow })
    split.append(node)
    last = node
  }
  const ends = el('div', { class: 'cell' })
  for (const target of targets) {
    const [node, busy] = drawTarget(rule, target, all, parts, places, isRelay)
    edges.push({ from: last, to: node, flow: busy, broken: Boolean(target.fault) })
    ends.append(node)
  }
  graph.append(el('div', { class: 'cell' }, matched), chain, split, ends)
}

function scripted(name) {
  return el('small', {}, el('a', { href: `#filters/${encodeURIComponent(name)}` }, name))
}

function drawFilter(filter, places) {
  const [title, details] = spoken(filter)
  const small = details.filter(Boolean).map(text => el('small', { class: filter.type === 'Fault' ? 'bad' : '' }, text))
  if (filter.type !== 'Script') return el('div', { class: `node ${filter.type === 'Fault' ? 'broken' : ''}`, 'data-node': `filter ${title}` }, title, small)
  return el('a', { class: 'node', href: `#filters/${encodeURIComponent(filter.script)}`, 'data-node': `filter ${filter.script}` }, title,
    places.put(el('small', { class: 'live' }), (counts, element) => {
      const one = counts.filters.get(filter.script)
      element.classList.toggle('idle', !one?.rate)
      return one ? `${number(one.calls)} calls${one.failures ? `, ${number(one.failures)} failed` : ''}` : 'not loaded'
    }))
}

function drawTarget(rule, target, all, parts, places, isRelay) {
  const counted = counts => isRelay ? counts.relays.get(rule.name) : counts.targets.get(`${rule.name} ${target.backend ?? ''}`)
  const flow = counts => counted(counts)?.rate ?? 0
  const share = all ? Math.round(100 * (target.weight ?? 1) / all) : 0
  const backend = parts.get(`backend ${target.backend}`)
  const endpoints = backend?.endpoints ?? []
  const node = el('div', { class: `node ${target.fault || !endpoints.length && target.backend ? 'broken' : ''}`, 'data-node': `backend ${target.backend || target.fault || ''}` },
    target.backend || (target.fault ? '' : 'answered by a filter'),
    target.fault ? el('small', { class: 'bad' }, `${target.fault}: ${target.reason ?? ''}`)
      : target.backend && el('small', { class: endpoints.length ? '' : 'bad' }, endpoints.length ? endpointsOf(backend) : 'no endpoint is ready: 503'),
    target.backend && places.put(el('small', { class: 'bad' }), counts => [...counts.resting.get(target.backend) ?? []].map(one => `${one} stands aside`).join(', ')),
    (target.filters ?? []).map(filter => filter.type === 'Script' ? scripted(filter.script) : el('small', {}, spoken(filter)[0])),
    all && el('small', {}, `${share} %`),
    places.put(el('small', { class: 'live', 'data-count': `${rule.name} ${target.backend ?? ''}` }), (counts, element) => told(counted(counts), element, isRelay)),
    !isRelay && places.put(el('small'), counts => took(counted(counts))))
  return [node, flow]
}

function endpointsOf(backend) {
  const [first, ...others] = backend.endpoints
  const how = [backend.protocol && backend.protocol !== 'http' && backend.protocol, backend.tls && 'TLS'].filter(Boolean).join(' ')
  return `${first.address}:${first.port}${others.length ? ` and ${others.length} more` : ''}${how ? ` (${how})` : ''}`
}

function told(one, element, isRelay) {
  element.classList.toggle('idle', !one?.rate)
  if (!one?.requests) return isRelay ? 'no connections yet' : 'no requests yet'
  return `${number(one.requests)}${one.failed ? ` (${number(one.failed)} failed)` : ''}, ${number(one.rate)}/s`
}

const took = one => one?.requests ? `p50 < ${duration(quantile(one.slots, .5))}, p99 < ${duration(quantile(one.slots, .99))}` : ''

function thicken(path, edge, counts) {
  const rate = edge.flow(counts)
  path.classList.toggle('busy', rate > 0)
  path.setAttribute('stroke-width', rate > 0 ? Math.min(1.5 + Math.log10(1 + rate) * 1.6, 9) : 1.5)
}

function layOut(graph, lines, paths) {
  const ground = graph.getBoundingClientRect()
  lines.setAttribute('width', graph.scrollWidth)
  lines.setAttribute('height', graph.scrollHeight)
  for (const [path, { from, to, isDown }] of paths) {
    const a = from.getBoundingClientRect(), b = to.getBoundingClientRect()
    const x = graph.scrollLeft - ground.left, y = graph.scrollTop - ground.top
    if (isDown) path.setAttribute('d', `M ${a.left + a.width / 2 + x} ${a.bottom + y} V ${b.top + y}`)
    else {
      const [x1, y1, x2, y2] = [a.right + x, a.top + a.height / 2 + y, b.left + x, b.top + b.height / 2 + y]
      const bend = Math.max((x2 - x1) / 2, 12)
      path.setAttribute('d', `M ${x1} ${y1} C ${x1 + bend} ${y1}, ${x2 - bend} ${y2}, ${x2} ${y2}`)
    }
  }
}
