// What the admin server says, as what people think in: routes, filters, what is wrong, and what happens at each.

const ROUTE = /^(?:HTTP|GRPC|TLS|TCP|UDP)Route /
const PARENT = / (?:on|listener) .*$/s // what a condition is about besides its object

// Which route a part belongs to, as "KIND NAMESPACE/NAME"; undefined for what no route says.
export function routeOf(part) {
  if (part.type === 'rule') return part.order?.[1] ? `${part.grpc ? 'GRPCRoute' : 'HTTPRoute'} ${part.order[1]}` : undefined
  if (part.type === 'relay') return part.order?.[1] ? `${part.name.split('/')[0]} ${part.order[1]}` : undefined
}

// All routes: those in force with their rules, and those that are not or were refused, which have none.
export function routesOf(state) {
  const routes = new Map()
  const route = key => {
    if (!routes.has(key)) routes.set(key, { key, name: key.split(' ')[1], kind: key.split(' ')[0], rules: [], faults: state.faultsOf.get(key) ?? [] })
    return routes.get(key)
  }
  for (const part of state.snapshot.parts) {
    const key = routeOf(part)
    if (key) route(key).rules.push(part)
  }
  for (const key of [...state.statuses.map(one => one.object.replace(PARENT, '')), ...state.faultsOf.keys()]) if (ROUTE.test(key)) route(key)
  for (const one of routes.values()) one.rules.sort((a, b) => (a.order[2] ?? 0) - (b.order[2] ?? 0))
  return [...routes.values()].sort((a, b) => a.name < b.name ? -1 : a.name > b.name ? 1 : a.kind < b.kind ? -1 : 1)
}

// What is wrong, by the object that it is about; an object that names no namespace is in "default".
export function byObject(faults) {
  const found = new Map()
  for (const fault of faults) {
    const whole = fault.object.replace(PARENT, '')
    const key = /^\S+ [^/]+$/.test(whole) ? whole.replace(' ', ' default/') : whole
    found.set(key, [...found.get(key) ?? [], fault])
  }
  return found
}

export const hostnamesOf = rule => [...new Set(rule.at.map(at => at.hostname || '*'))]
export const backendOf = target => target.backend || target.written || ''

// What does not work of a route, in words; none where all is well.
export function wrongWith(route, backends) {
  const words = route.faults.map(fault => fault.message)
  if (!route.rules.length) words.push('no rule of it is in force')
  for (const rule of route.rules) {
    for (const filter of rule.filters ?? []) if (filter.type === 'Fault') words.push(filter.reason ?? '')
    for (const target of rule.targets ?? []) {
      if (target.fault) words.push(target.reason ?? '')
      else if (target.backend && !backends.get(target.backend)?.endpoints?.length) words.push(`${target.backend}: no endpoint is ready`)
    }
  }
  return [...new Set(words)]
}

// Everything that somebody may remember of a route: names, hosts, paths, backends, reasons.
export function wordsOf(route, wrong) {
  const rules = route.rules.flatMap(rule => [
    ...hostnamesOf(rule), ...rule.at.map(at => at.listener), ...(rule.matches ?? []).flatMap(spokenMatch), ...(rule.targets ?? []).map(backendOf),
    ...[...rule.filters ?? [], ...(rule.targets ?? []).flatMap(target => target.filters ?? [])].flatMap(filter => spoken(filter).flat()),
  ])
  return [route.key, ...rules, ...wrong, ...route.faults.map(fault => `${fault.object} ${fault.field} ${fault.file}`)].join('\n').toLowerCase()
}

// Where a listener can be asked: its port as it is open, and its address where the gateway listens on one.
export function whereOf(listener, { listening: bind = '', port_offset: offset = 0 }) {
  const port = listener.port + offset
  const scheme = { HTTP: 'http://', HTTPS: 'https://' }[listener.protocol ?? 'HTTP'] ?? ''
  return { port, address: bind ? `${scheme}${bind.includes(':') ? `[${bind}]` : bind}:${port}` : `:${port}` }
}

const none = () => ({ requests: 0, failed: 0, slots: new Array(32).fill(0), rate: 0 })

// Counts of all workers, added up. `before` is what this function gave the last time: rates are what came since.
export function counted(workers, before, now = performance.now() / 1000) {
  const counts = { at: now, rules: new Map(), targets: new Map(), filters: new Map(), ejected: new Map(), total: none(), connections: 0, unmatched: 0, refused: 0, workers: workers.length }
  const of = (map, key) => map.get(key) ?? map.set(key, none()).get(key)
  for (const worker of workers) {
    counts.connections += (worker.connections ?? 0) + (worker.relayed ?? 0) + (worker.tunnels ?? 0)
    counts.unmatched += worker.unmatched ?? 0
    counts.refused += worker.refused ?? 0
    for (const [rule, backend, classes, slots] of worker.targets ?? []) {
      const all = classes.reduce((a, b) => a + b, 0)
      const both = [of(counts.targets, `${rule} ${backend}`), of(counts.rules, rule), counts.total]
      if (!all) continue
      for (const one of both) {
        one.requests += all
        one.failed += classes[5]
        slots.forEach((count, slot) => { one.slots[slot] += count })
      }
    }
    for (const [relay, backend, accepted, refused] of worker.relays ?? []) {
      for (const one of [of(counts.targets, `${relay} ${backend}`), of(counts.rules, relay)]) {
        one.requests += accepted + refused
        one.failed += refused
      }
    }
    for (const [name, calls, failures, slow, last, runs] of worker.filters ?? []) {
      const one = counts.filters.get(name) ?? counts.filters.set(name, { calls: 0, failures: 0, slow: 0, last: '', runs: '', rate: 0 }).get(name)
      one.calls += calls
      one.failures += failures
      one.slow += slow
      one.last ||= last
      one.runs ||= runs
    }
    for (const [backend, endpoint] of worker.ejected ?? []) {
      counts.ejected.set(backend, (counts.ejected.get(backend) ?? new Set()).add(endpoint))
    }
  }
  if (before) rates(counts, before)
  return counts
}

function rates(counts, before) {
  const seconds = Math.max(counts.at - before.at, 0.001)
  // A worker that was replaced counts anew: no rate is better than a negative one.
  const rate = (now, then) => then === undefined ? 0 : Math.max(now - then, 0) / seconds
  for (const map of ['rules', 'targets']) {
    for (const [key, one] of counts[map]) one.rate = rate(one.requests, before[map].get(key)?.requests)
  }
  for (const [key, one] of counts.filters) one.rate = rate(one.calls, before.filters.get(key)?.calls)
  counts.total.rate = rate(counts.total.requests, before.total.requests)
}

// The duration that a share of the requests did not exceed: slot n holds those under 2**n * 0.5 ms.
export function quantile(slots, share) {
  const all = slots.reduce((a, b) => a + b, 0)
  let running = 0
  for (let slot = 0; slot < slots.length; slot++) {
    running += slots[slot]
    if (all && running >= all * share) return 2 ** slot * 0.5
  }
  return undefined
}

const coarse = new Intl.NumberFormat('en', { maximumFractionDigits: 0 }), fine = new Intl.NumberFormat('en', { maximumFractionDigits: 1 })
export const number = value => (value < 10 ? fine : coarse).format(value)
export const counting = (count, one, several = `${one}${one.endsWith('s') ? 'es' : 's'}`) => `${number(count)} ${count === 1 ? one : several}`
export const duration = ms => ms === undefined ? '' : ms < 1000 ? `${ms} ms` : `${number(ms / 1000)} s`

// A filter's name as people know it. What comes of a policy is called KIND/NAMESPACE/NAME#FIELD3.
export function filterTitle(name) {
  const [whole, scope] = name.split('#')
  const [, kind, object] = /^([^/]+)\/([^/]+\/[^/]+)$/.exec(whole) ?? [, '', whole]
  const [, word, at] = /^(\D+)(\d+)$/.exec(scope ?? '') ?? []
  return `${kind ? `${kind} ` : ''}${object}${!word ? '' : word === 'bps' ? `, bps of port ${at}` : `, ${word}[${at}]`}`
}

// A filter in a few words: [title, details].
export function spoken(filter) {
  const pairs = list => (list ?? []).map(([name, value]) => `${name}: ${value}`)
  const edits = filter => [...pairs(filter.set).map(t => `set ${t}`), ...pairs(filter.add).map(t => `add ${t}`), ...(filter.remove ?? []).map(t => `remove ${t}`)]
  const path = edit => edit ? [edit.kind === 'ReplaceFullPath' ? `path → ${edit.value}` : `prefix → ${edit.value}`] : []
  switch (filter.type) {
    case 'RequestHeaderModifier': return ['Request headers', edits(filter)]
    case 'ResponseHeaderModifier': return ['Response headers', edits(filter)]
    case 'RequestRedirect': return [`Redirect ${filter.status ?? 302}`, [[filter.scheme, filter.hostname, filter.port].filter(Boolean).join(' '), ...path(filter.path)]]
    case 'URLRewrite': return ['Rewrite', [filter.hostname && `host → ${filter.hostname}`, ...path(filter.path)]]
    case 'RequestMirror': return ['Mirror', [`to ${filter.backend}`, filter.numerator !== undefined && `${filter.numerator} of ${filter.denominator ?? 100}`]]
    case 'CORS': return ['CORS', (filter.allow_origins ?? []).slice(0, 3)]
    case 'ExternalAuth': return ['External authorisation', [`by ${filter.backend}`]]
    case 'Fault': return [`Fault ${filter.status ?? 500}`, [filter.reason]]
    case 'Script': return [filterTitle(filter.script), []]
    default: return [filter.type, []]
  }
}

export function spokenMatch(match) {
  const path = match.path ?? {}
  const kind = { PathPrefix: '', Exact: '= ', RegularExpression: '~ ', Method: 'method ' }[path.kind ?? 'PathPrefix']
  const more = (list, word) => (list ?? []).map(one => `${word} ${one.name} ${one.regex ? '~' : '='} ${one.value}`)
  return [`${match.method ? match.method + ' ' : ''}${kind}${path.value ?? '/'}`, ...more(match.headers, 'header'), ...more(match.query, 'query')]
}
