// Draws what /events says: replicas as rows, slots as lanes, and what happened. Whatever is shown goes in as text, never
// as HTML, and data-* attributes say the same for programs.
'use strict';

const SVG = 'http://www.w3.org/2000/svg';
const LANE = 30;
const NAME = 38;
const END = 26;
const byId = (id) => document.getElementById(id);

// An element with attributes and children; of SVG where a namespace is given.
function make(name, attributes = {}, children = [], space) {
  const element = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

const shape = (name, attributes, children) => make(name, attributes, children, SVG);

// Letters are classes of the style sheet, and there are colours for six of them.
const ofHistory = (letter) => (letter ? 'ABCDEF'[(letter.charCodeAt(0) - 65) % 6] : '');

const timeOf = (millis) => new Date(millis).toLocaleTimeString([], { hour12: false });

function figures(picture) {
  const root = document.documentElement.dataset;
  root.histories = picture.histories;
  root.merges = picture.merges;
  root.views = picture.views;
  root.tolerance = picture.tolerance;
  root.evidence = picture.charges.length;
  root.at = picture.at;
  const may = `${picture.replicas.length} replicas, of which ${picture.faulty} may lie`;
  byId('cluster').textContent = `${picture.cluster}: ${may}`;
  document.title = `${picture.cluster}: ${picture.histories === 1 ? 'one history' : `${picture.histories} histories`}`;
  byId('histories').textContent = picture.histories;
  byId('merges').textContent = picture.merges;
  byId('views').textContent = picture.views;
  const rate = picture.rates.at(-1);
  byId('rate').textContent = rate === undefined ? '–' : Math.round(rate);
  const tolerance = byId('tolerance');
  tolerance.textContent = toleranceWords(picture);
  tolerance.className = picture.tolerance < 0 ? 'lacks' : '';
  const charges = picture.charges.map(({ culprit, text }) => make('li', { 'data-culprit': culprit }, [`proven: ${text}`]));
  byId('charges').replaceChildren(...charges);
}

function toleranceWords({ tolerance, strong, weak }) {
  const needs = `A strong answer needs ${strong} replicas of one history, a weak one ${weak}.`;
  if (tolerance < 0) return `Strong requests wait: ${-tolerance} too few of one history. ${needs}`;
  const more = tolerance === 0 ? 'none' : tolerance;
  return `Strong requests are answered, and ${more} more may fail. ${needs}`;
}

function rates(picture) {
  const most = Math.max(1, ...picture.rates);
  const step = 120 / Math.max(1, picture.rates.length - 1);
  const points = picture.rates.map((rate, at) => `${(at * step).toFixed(1)},${(23 - (rate / most) * 22).toFixed(1)}`);
  byId('rates').replaceChildren(shape('polyline', { points: points.join(' ') }));
}

// The lanes, in pixels of the room that there is.
function lanes(picture) {
  const svg = byId('lanes');
  const width = Math.max(320, svg.clientWidth || 960);
  const height = picture.replicas.length * LANE + 22;
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  svg.setAttribute('height', height);
  const [from, to] = picture.axis;
  const room = width - NAME - END;
  const x = (slot) => NAME + (Math.min(Math.max(slot - from, 0), to - from) / Math.max(1, to - from)) * room;
  const drawn = ticks(from, to, room).map((slot) =>
    shape('g', {}, [
      shape('line', { x1: x(slot), x2: x(slot), y1: 0, y2: height - 18 }),
      shape('text', { class: 'axis', x: x(slot), y: height - 5, 'text-anchor': 'middle' }, [String(slot)]),
    ]));
  picture.replicas.forEach((replica, at) => drawn.push(lane(replica, at * LANE + 4, from, x)));
  svg.replaceChildren(...drawn);
}

// Slots worth naming, not too near to each other.
function ticks(from, to, room) {
  const least = Math.max(1, ((to - from) * 70) / room);
  const power = 10 ** Math.floor(Math.log10(least));
  const step = Math.max(1, [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= least));
  const all = [];
  for (let slot = Math.ceil(from / step) * step; slot <= to && all.length < 100; slot += step) all.push(slot);
  return all;
}

function lane({ id, said, why_not: whyNot }, y, from, x) {
  const name = shape('text', { x: 0, y: y + 16 }, [`r${id}`]);
  if (!said) return shape('g', { class: 'away' }, [name]);
  const own = ofHistory(said.history);
  const shared = said.shared === null ? said.head : Math.min(said.shared, said.head);
  const parts = [
    ['stable', from, Math.min(said.stable, shared)],
    ['lock', said.stable, Math.min(said.lock, shared)],
    ['common', said.lock, shared],
    [`own ${own}`, shared, said.head],
  ];
  const bars = parts.filter(([, begin, end]) => end > begin).map(([kind, begin, end]) =>
    shape('rect', { class: kind, x: x(begin), y, width: Math.max(1, x(end) - x(begin)), height: 20 }));
  const mark = said.shared === null ? [] : [
    shape('text', { class: `own ${own}`, x: x(said.head) + 6, y: y + 15 }, [said.history]),
  ];
  const words = `r${id}: head ${said.head}, certified up to ${said.lock}, never undone up to ${said.stable}, history ${said.history}`;
  const title = shape('title', {}, [words]);
  return shape('g', { class: whyNot === null ? '' : 'away', 'data-lane': id }, [title, name, ...bars, ...mark]);
}

function row({ id, address, said, why_not: whyNot, is_convicted: isConvicted }) {
  const head = make('th', { scope: 'row' }, [`r${id}`]);
  if (whyNot !== null || !said) {
    const why = make('td', { class: 'why', colspan: 8 }, [`does not answer: ${whyNot}`]);
    return make('tr', { 'data-replica': id, 'data-reachable': 'false' }, [head, why, make('td', {}, [address])]);
  }
  const attributes = {
    'data-replica': id,
    'data-reachable': 'true',
    'data-head': said.head,
    'data-hash': said.hash,
    'data-lock': said.lock,
    'data-stable': said.stable,
    'data-view': said.view,
    'data-history': said.history,
    'data-standing': said.standing,
    'data-transport': said.transport,
    'data-convicted': isConvicted,
    class: isConvicted || said.standing !== 'voter' ? 'bad' : null,
  };
  const view = said.campaign === null ? said.view : `${said.view}, wants ${said.campaign}`;
  const cell = (...content) => make('td', {}, content);
  return make('tr', attributes, [
    head,
    cell(isConvicted ? 'convicted' : said.standing),
    cell(String(view)),
    cell(said.primary === id ? 'itself' : `r${said.primary}`),
    cell(`${said.head} `, make('code', {}, [said.hash])),
    cell(String(said.lock)),
    cell(String(said.stable)),
    make('td', { class: `own ${ofHistory(said.history)}` }, [said.history]),
    cell(said.transport),
    cell(address),
  ]);
}

// Written anew only where there is more, so that it is not read out again and again.
function log(picture) {
  const list = byId('log');
  const last = picture.log.at(-1);
  const state = last ? `${picture.log.length} ${last.at} ${last.text}` : '';
  if (list.dataset.state === state) return;
  list.dataset.state = state;
  const lines = picture.log.map(({ at, kind, text }) => {
    const time = make('time', { datetime: new Date(at).toISOString() }, [timeOf(at)]);
    return make('li', { class: kind, 'data-kind': kind }, [time, text]);
  });
  list.replaceChildren(...lines.reverse());
}

let newest = null;

function draw(picture) {
  newest = picture;
  figures(picture);
  rates(picture);
  lanes(picture);
  byId('replicas').replaceChildren(...picture.replicas.map(row));
  log(picture);
  byId('link').textContent = `as of ${timeOf(picture.at)}`;
}

const source = new EventSource('events');
source.onmessage = (event) => draw(JSON.parse(event.data));
source.onerror = () => {
  byId('link').textContent = newest
    ? `nothing is heard since ${timeOf(newest.at)}`
    : 'elea top does not answer: has it ended, or do too many look?';
};
window.addEventListener('resize', () => newest && lanes(newest));
