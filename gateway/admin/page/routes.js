// Routes: all of them to choose from, and the chosen one as a graph, with what is wrong with it in words.

import { el, link, name } from './dom.js'
import { Finder } from './finder.js'
import { drawRoute } from './graph.js'
import { hostnamesOf, number, routesOf, wordsOf, wrongWith } from './model.js'

export function routesView(state) {
  return new Finder({
    tab: 'routes', what: 'route', hint: 'Name, host, path, backend, reason', empty: 'No route is in force.',
    items: () => routesOf(state).map(route => itemOf(route, state)),
    chosenPrint: ({ route }) => JSON.stringify([route, partsOf(route, state), state.snapshot.listening, state.snapshot.port_offset]),
    draw: ({ route, wrong }, places) => [
      el('h2', {}, el('span', { class: 'kind' }, route.kind), ' ', el('span', { class: 'name' }, name(route.name))),
      saidOf(route, wrong),
      route.rules.length > 0 && drawRoute(route, state, places),
    ],
  })
}

function itemOf(route, state) {
  const wrong = wrongWith(route, state.backends)
  const hosts = [...new Set(route.rules.flatMap(hostnamesOf))]
  return {
    name: route.key, title: route.name, route, wrong, isBroken: wrong.length > 0, text: wordsOf(route, wrong),
    print: JSON.stringify([hosts, wrong[0], route.rules.map(rule => rule.name)]),
    small: places => [
      el('small', {}, el('span', { class: 'kind' }, route.kind), ' ', name(hosts.length > 2 ? `${hosts[0]} and ${hosts.length - 1} more` : hosts.join(', '))),
      wrong.length > 0 && el('small', { class: 'bad' }, name(wrong[0].length > 90 ? `${wrong[0].slice(0, 90)}…` : wrong[0])),
      places.put(el('small', { class: 'live' }), counts => {
        const rate = route.rules.reduce((sum, rule) => sum + (counts.rules.get(rule.name)?.rate ?? 0), 0)
        return rate ? `${number(rate)}/s` : ''
      }),
    ],
  }
}

// What a graph is drawn of besides the route: when one of these changes, it is drawn anew.
function partsOf(route, state) {
  const names = new Set(route.rules.flatMap(rule => [...rule.at.map(at => `listener ${at.listener}`), ...(rule.targets ?? []).map(target => `backend ${target.backend}`)]))
  return [[...names].map(one => state.parts.get(one)), state.snapshot.problems.filter(problem => names.has(`listener ${problem.part}`))]
}

// The faults of the object; of what the graph shows itself nothing is said twice.
function saidOf(route, wrong) {
  const lines = route.faults.map(fault => el('li', {}, el('span', { class: 'where' }, name(fault.object.replace(`${route.key} `, ''))), ' ', name(fault.message)))
  if (!route.rules.length && !lines.length) lines.push(...wrong.map(words => el('li', {}, words)))
  return lines.length > 0 && el('ul', { class: 'said', 'aria-label': 'what is wrong with this route' }, lines)
}

export const routeLink = key => el('a', { href: link('routes', key) }, name(key))
