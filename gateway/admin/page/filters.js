// Filters: what each is, what it says, whether its tests pass; and, where the gateway reads files, an editor.

import { el, fill, name } from './dom.js'
import { Finder } from './finder.js'
import { filterTitle, number, routeOf } from './model.js'
import { routeLink } from './routes.js'

const WORDS = new Set('False None True and as assert async await break class continue def del elif else except finally for from global if import in is lambda match nonlocal not or pass raise return try while with yield'.split(' '))
const TOKENS = /(?<text>[rbfRBF]{0,2}(?:"""[^]*?"""|'''[^]*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))|(?<note>#.*)|(?<word>[A-Za-z_]\w*)|[^]/g
const drafts = new Map() // by name: what somebody typed and has not saved

export function filtersView(state) {
  return new Finder({
    tab: 'filters', what: 'filter', hint: 'Name, source, what is wrong', empty: 'No rule has a filter in Python.',
    items: () => filtersOf(state).map(filter => {
      const problem = problemOf(filter, state)
      return {
        name: filter.name, title: filterTitle(filter.name), filter, problem, isBroken: problem !== '',
        text: [filter.name, filter.source, filter.where, filter.part?.built_in, problem].join('\n').toLowerCase(), print: String(problem !== ''),
        small: places => [
          problem && el('small', { class: 'bad' }, 'not in force as written'),
          places.put(el('small', { class: 'live' }), counts => { const rate = counts.filters.get(filter.name)?.rate; return rate ? `${number(rate)} calls/s` : '' }),
        ],
      }
    }),
    chosenPrint: ({ filter, problem }) => JSON.stringify([filter, problem, usersOf(filter, state)]),
    draw: ({ filter }, places) => drawFilter(filter, state, places, (...what) => save(state, ...what)),
  })
}

async function save(state, name, text, digest) {
  const answer = await fetch(`filters/${encodeURIComponent(name)}`, {
    method: 'PUT', body: text, headers: { Authorization: `Bearer ${state.key}`, 'If-Match': `"${digest}"`, 'Content-Type': 'text/x-python' },
  }).catch(error => ({ ok: false, status: 0, text: async () => `${error}` }))
  if (!answer.ok) return { written: false, in_force: false, message: (await answer.text()).trim() || `refused: ${answer.status}` }
  const result = { written: true, ...await answer.json() }
  setTimeout(state.refresh)
  return result
}

// Routes and listeners that have it.
function usersOf(filter, state) {
  const word = `"script":${JSON.stringify(filter.name)}`
  const users = state.snapshot.parts.filter(part => (part.filters || part.targets) && JSON.stringify([part.filters, part.targets]).includes(word))
  return [...new Set(users.map(part => routeOf(part) ?? (part.type === 'listener' ? `listener ${part.name}` : '')))].filter(Boolean)
}

const testsOf = source => [...source.matchAll(/^(?:async )?def (test_\w*)/gm)].map(found => found[1])

// Filters that data planes know, and those that are written but not in force.
function filtersOf(state) {
  const known = new Map()
  for (const part of state.snapshot.parts) if (part.type === 'script') known.set(part.name, { name: part.name, source: part.source, part })
  for (const one of state.sources) known.set(one.name, { ...known.get(one.name), ...one })
  return [...known.values()].sort((a, b) => a.name.localeCompare(b.name))
}

function problemOf(filter, state) {
  const problem = state.snapshot.problems.find(one => one.part === filter.name)
  if (problem) return problem.message
  const [namespace, name, third] = filter.name.split('#')[0].split('/') // KIND/NAMESPACE/NAME#SCOPE; a Filter's has no kind
  const object = third ? `${namespace} ${name}/${third}` : `Filter ${namespace}/${name}`
  const said = state.statuses.filter(one => one.object === object || one.object.startsWith(`${object} on `))
  return [...new Set(said.flatMap(one => one.conditions.filter(condition => !condition.healthy).map(condition => condition.message)))].join('\n')
}

const lineOf = message => Number(/\bline (\d+)/.exec(message)?.[1] ?? 0)

function drawFilter(filter, state, places, save) {
  const problem = problemOf(filter, state)
  const { part } = filter
  const users = usersOf(filter, state)
  const fact = (title, read) => el('div', {}, el('dt', {}, title), typeof read === 'function' ? places.put(el('dd', { 'data-fact': title }), counts => read(counts.filters.get(filter.name))) : el('dd', { 'data-fact': title }, read))
  const made = el('section', { 'data-filter': filter.name },
    el('h2', {}, name(filterTitle(filter.name))),
    problem && el('div', { class: 'said' }, problem),
    el('dl', { class: 'facts' },
      fact('calls', one => one ? number(one.calls) : '0'), fact('a second', one => one ? number(one.rate) : '0'),
      fact('failed', one => one ? number(one.failures) : '0'), fact('slow', one => one ? number(one.slow) : '0'),
      fact('runs', one => one?.runs || 'nowhere yet'),
      part && fact('where it fails', part.passes ? 'requests pass' : 'requests get 500'),
      fact('used by', users.length ? users.map(one => el('div', {}, one.startsWith('listener ') ? name(one) : routeLink(one))) : 'no rule'),
      filter.where && fact('written in', name(filter.where))),
    places.put(el('div', { class: 'bad' }), counts => { const last = counts.filters.get(filter.name)?.last; return last ? `last failure: ${last}` : '' }))
  if (part?.built_in) made.append(el('p', {}, `${part.built_in} comes with the gateway; it is configured with:`), el('pre', { class: 'config', tabindex: '0', 'aria-label': `configuration of ${filter.name}` }, pretty(part.config)))
  else made.append(...drawSource(filter, problem, state, save))
  return made
}

function pretty(json) {
  try { return JSON.stringify(JSON.parse(json), null, 2) } catch { return json }
}

function drawSource(filter, problem, state, save) {
  const isEditable = Boolean(state.key && filter.digest)
  const draft = drafts.get(filter.name)
  const text = draft?.text ?? filter.source ?? ''
  const lines = el('pre', { class: 'lines', 'aria-hidden': 'true' })
  const number_ = text => fill(lines, text.split('\n').map((_, at) => [el('span', { class: at + 1 === lineOf(problem) ? 'here' : '' }, `${at + 1}`), '\n']))
  number_(text)
  const tests = testsOf(filter.source ?? '')
  const failed = tests.find(test => problem.includes(test))
  const told = problem ? test => test === failed ? ['bad', '✗'] : ['soft', '–'] : () => ['good', '✓']
  const list = el('ul', { class: 'tests' }, tests.map(test => { const [kind, mark] = told(test); return el('li', { class: kind, 'data-test': test }, `${mark} ${test}`) }))
  const verdict = tests.length ? list : el('p', { class: 'soft' }, 'It has no test_… functions: an edit takes effect as soon as it loads.')
  if (!isEditable) {
    const why = filter.digest ? 'To edit it, open the address with a key that fsm run printed.'
      : filter.unwritable ? `It cannot be edited here: ${filter.unwritable}` : 'It is read here; whoever runs the gateway on files can edit it.'
    return [el('div', { class: 'source' }, lines, el('pre', { tabindex: '0', 'aria-label': `source of ${filter.name}` }, colours(text))), verdict, el('p', { class: 'soft' }, why)]
  }
  const note = el('span', { role: 'status' })
  const editor = el('textarea', { spellcheck: 'false', autocomplete: 'off', wrap: 'off', 'aria-label': `source of ${filter.name}` })
  const below = el('pre', { 'aria-hidden': 'true' }) // the same text, in colours
  const show = text => { number_(text); fill(below, colours(`${text}\n`)) }
  editor.value = text
  show(text)
  const button = el('button', { type: 'button', disabled: draft === undefined }, 'Save')
  const undo = el('button', { type: 'button', class: 'plain', disabled: draft === undefined }, 'Discard')
  if (draft && draft.digest !== filter.digest) note.append(el('span', { class: 'bad' }, 'The file has changed since you began; saving will be refused.'))
  editor.addEventListener('input', () => {
    drafts.set(filter.name, { text: editor.value, digest: drafts.get(filter.name)?.digest ?? filter.digest })
    button.disabled = undo.disabled = false
    state.said = undefined
    show(editor.value)
  })
  const submit = async () => {
    if (button.disabled) return
    button.disabled = true
    fill(note, 'saving')
    const text = editor.value
    const result = await save(filter.name, text, drafts.get(filter.name).digest)
    if (!result.written) button.disabled = false
    else if (editor.value === text) drafts.delete(filter.name)
    else drafts.set(filter.name, { text: editor.value, digest: result.digest }) // somebody typed on meanwhile
    if (result.written) state.said = [filter.name, result]
    fill(note, el('span', { class: result.in_force ? 'good' : 'bad' }, result.message))
  }
  editor.addEventListener('keydown', event => {
    if (event.key === 's' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); submit() }
    if (event.key === 'Tab' && !event.shiftKey && !event.altKey && !event.ctrlKey) { event.preventDefault(); document.execCommand('insertText', false, '    ') }
  })
  button.addEventListener('click', submit)
  undo.addEventListener('click', () => { drafts.delete(filter.name); state.redraw() })
  if (state.said?.[0] === filter.name) fill(note, el('span', { class: state.said[1].in_force ? 'good' : 'bad' }, state.said[1].message))
  return [el('div', { class: 'bar' }, button, undo, note), el('div', { class: 'source' }, lines, el('div', { class: 'both' }, below, editor)), verdict]
}

function colours(source) {
  const pieces = []
  for (const found of source.matchAll(TOKENS)) {
    const { text, note, word } = found.groups
    if (text) pieces.push(el('u', {}, text))
    else if (note) pieces.push(el('i', {}, note))
    else if (WORDS.has(word)) pieces.push(el('b', {}, word))
    else if (typeof pieces.at(-1) === 'string') pieces[pieces.length - 1] += found[0]
    else pieces.push(found[0])
  }
  return pieces
}
