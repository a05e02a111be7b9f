// What /snapshot and /statistics say, as what people think in: routes, filters, and what happens at each.

export function routesOf(parts) {
  const routes = new Map()
  for (const part of parts) {
    if (part.type !== 'rule' && part.type !== 'relay') continue
    const name = part.order?.[1] || part.name
    const key = `${part.type === 'relay' ? 'stream ' : part.grpc ? 'gRPC ' : ''}${name}`
    if (!routes.has(key)) routes.set(key, { key, name, kind: part.type, rules: [] })
    routes.get(key).rules.push(part)
  }
  for (const route of routes.values()) route.rules.sort((a, b) => (a.order?.[2] ?? 0) - (b.order?.[2] ?? 0) || a.name.localeCompare(b.name))
  return [...routes.values()].sort((a, b) => a.key.localeCompare(b.key))
}

// The port at which clients find a listener.
export const servedAt = (listener, state) => listener.port + (state.snapshot.port_offset ?? 0)
export const hostnamesOf = rule => [...new Set(rule.at.map(at => at.hostname || '*'))]

const none = () => ({ requests: 0, failed: 0, slots: new Array(32).fill(0), rate: 0 })

// Counts of all workers, added up. `before` is what this function gave the last time: rates are what came since.
export function counted(workers, before, now = performance.now() / 1000) {
  const counts = { at: now, rules: new Map(), targets: new Map(), relays: new Map(), filters: new Map(), resting: new Map(), total: none(), connections: 0, unmatched: 0, refused: 0, workers: workers.length }
  const of = (map, key) => map.get(key) ?? map.set(key, none()).get(key)
  for (const worker of workers) {
    counts.connections += (worker.connections ?? 0) + (worker.relayed ?? 0) + (worker.tunnels ?? 0)
    counts.unmatched += worker.unmatched ?? 0
    counts.refused += worker.refused ?? 0
    for (const [rule, backend, classes, slots] of worker.targets ?? []) {
      for (const one of [of(counts.targets, `${rule} ${backend}`), of(counts.rules, rule), counts.total]) {
        classes.forEach((count, hundreds) => { one.requests += count; if (hundreds >= 5) one.failed += count })
        slots.forEach((count, slot) => { one.slots[slot] += count })
      }
    }
    for (const [relay, accepted, refused] of worker.relays ?? []) {
      const one = of(counts.relays, relay)
      one.requests += accepted
      one.failed += refused
    }
    for (const [name, calls, failures, slow, last, runs] of worker.filters ?? []) {
      const one = counts.filters.get(name) ?? counts.filters.set(name, { calls: 0, failures: 0, slow: 0, last: '', runs: '', rate: 0 }).get(name)
      one.calls += calls
      one.failures += failures
      one.slow += slow
      one.last ||= last
      one.runs ||= runs
    }
    for (const [backend, endpoint] of worker.resting ?? []) {
      counts.resting.set(backend, (counts.resting.get(backend) ?? new Set()).add(endpoint))
    }
  }
  if (before) rates(counts, before)
  return counts
}

function rates(counts, before) {
  const seconds = Math.max(counts.at - before.at, 0.001)
  // A worker that was replaced counts anew: no rate is better than a negative one.
  const rate = (now, then) => then === undefined ? 0 : Math.max(now - then, 0) / seconds
  for (const map of ['rules', 'targets', 'relays']) {
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

export const number = value => value.toLocaleString('en', { maximumFractionDigits: value < 10 ? 1 : 0 })
export const duration = ms => ms === undefined ? '' : ms < 1000 ? `${ms} ms` : `${number(ms / 1000)} s`

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
    case 'Script': return [filter.script, []]
    default: return [filter.type, []]
  }
}

export function spokenMatch(match) {
  const path = match.path ?? {}
  const kind = { PathPrefix: '', Exact: '= ', RegularExpression: '~ ', Method: 'method ' }[path.kind ?? 'PathPrefix']
  const more = (list, word) => (list ?? []).map(one => `${word} ${one.name} ${one.regex ? '~' : '='} ${one.value}`)
  return [`${match.method ? match.method + ' ' : ''}${kind}${path.value ?? '/'}`, ...more(match.headers, 'header'), ...more(match.query, 'query')]
}

export const isFailing = route => route.rules.some(rule => (rule.targets ?? []).some(target => target.fault) || (rule.filters ?? []).some(filter => filter.type === 'Fault'))
