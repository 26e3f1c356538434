// Gallery: one card an object, in the order that serves marking; a page at a time.

const PAGE = 24;
const gallery = { order: [], shown: 0 };
const listed = new Map(data.next.map((i, place) => [i, place])); // what to mark next, and in which order

const ORDERS = {
  next: (a, b) => listed.get(a) - listed.get(b),
  doubt: (a, b) => Math.abs(scores[a] - thresholdOf(a)) - Math.abs(scores[b] - thresholdOf(b)),
  low: (a, b) => scores[a] - scores[b],
  high: (a, b) => scores[b] - scores[a],
  small: (a, b) => areas[a] - areas[b],
  large: (a, b) => areas[b] - areas[a],
  marked: (a, b) => a - b,
};

// What is asked about lies on both sides of the threshold; the other orders are of what is displayed.
const WANTED = {
  next: (i) => listed.has(i) && fits(i),
  doubt: fits,
  marked: (i) => verdicts.has(i),
};

function sortGallery() {
  const order = $('order').value;
  const chosen = [];
  for (let i = 0; i < total; i++) {
    if (WANTED[order]?.(i) ?? shown[i]) chosen.push(i);
  }
  gallery.order = chosen.sort(ORDERS[order]);
}

function fillGallery() {
  sortGallery();
  gallery.shown = 0;
  $('cards').replaceChildren();
  const isNext = $('order').value === 'next';
  $('why-next').hidden = !isNext;
  $('why-any').hidden = isNext;
  $('gallery-empty').textContent = gallery.order.length ? '' : 'There is nothing to show here.';
  showMore();
}

// The list of what to mark next is short; after it the others can be looked through.
const goesOn = () => $('order').value === 'next' && total > gallery.order.length;

function more() {
  if (gallery.shown < gallery.order.length) return showMore();
  $('order').value = 'doubt';
  fillGallery();
  return $('cards').firstElementChild;
}

function showMore() {
  const cards = gallery.order.slice(gallery.shown, gallery.shown + PAGE).map(card);
  gallery.shown += cards.length;
  $('cards').append(...cards);
  const left = gallery.order.length - gallery.shown;
  $('more').hidden = !left && !goesOn();
  $('more').textContent = left ? `Show more (${format(left)} left)` : 'Show all, doubtful first';
  return cards[0];
}

// Pictures are drawn when their card comes into view.
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      drawCard(entry.target, Number(entry.target.parentElement.dataset.object));
    }
  },
  { rootMargin: '300px' },
);

function card(i) {
  const frame = frames[owner[i]];
  const picture = element('canvas', { width: 264, height: 264, title: 'Show it on its frame (F)' });
  picture.setAttribute('role', 'img');
  picture.setAttribute('aria-label', `${nameOf(i)} of ${frame.name}`);
  const score = element('b', { textContent: scores[i].toFixed(digits) });
  const facts = element('p', {}, score, ` · ${format(areas[i])} px`);
  const where = element('p', { className: 'where', textContent: frame.name, title: frame.name });
  const buttons = element('div', { className: 'buttons' });
  for (const [verdict, text] of [['right', '✓ Right'], ['wrong', '✗ Wrong']]) {
    const button = element('button', { type: 'button', className: `verdict ${verdict}`, textContent: text });
    button.dataset.verdict = verdict;
    button.setAttribute('aria-label', `${verdict}: ${nameOf(i).toLowerCase()} of ${frame.name}, score ${scores[i].toFixed(digits)}`);
    buttons.append(button);
  }
  const item = element('li', { className: 'card' }, picture, facts, where, buttons);
  if (scores[i] < thresholdOf(i)) item.append(element('span', { className: 'badge', textContent: 'below', title: 'Below the threshold' }));
  item.dataset.object = String(i);
  showVerdict(item);
  watcher.observe(picture);
  return item;
}

function showVerdict(item) {
  const verdict = verdicts.get(Number(item.dataset.object));
  item.classList.toggle('is-right', verdict === 'right');
  item.classList.toggle('is-wrong', verdict === 'wrong');
  for (const button of item.querySelectorAll('button')) {
    button.setAttribute('aria-pressed', String(button.dataset.verdict === verdict));
  }
}

async function showOnFrame(i) {
  await show(owner[i]);
  view.picked = i;
  showPicked();
  redraw();
  $('frames').scrollIntoView({ block: 'start' });
}

function pressed(event) {
  const item = event.target.closest('.card');
  if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
  const i = Number(item.dataset.object);
  const key = event.key.toLowerCase();
  if (key === 'r') setVerdict(i, 'right');
  else if (key === 'w') setVerdict(i, 'wrong');
  else if (key === 'f') {
    // From there the frame's Right and Wrong are at hand.
    showOnFrame(i).then(() => $('picked-buttons').firstElementChild.focus({ preventScroll: true }));
  } else if (key === 'arrowright' || key === 'arrowleft') {
    let next = key === 'arrowright' ? item.nextElementSibling : item.previousElementSibling;
    if (!next && key === 'arrowright' && gallery.shown < gallery.order.length) next = showMore();
    next?.querySelector('button').focus();
  } else return;
  event.preventDefault();
}

function clicked(event) {
  const item = event.target.closest('.card');
  if (!item) return;
  const i = Number(item.dataset.object);
  if (event.target.dataset.verdict) {
    setVerdict(i, event.target.dataset.verdict);
  } else if (event.target.tagName === 'CANVAS') {
    showOnFrame(i);
  }
}

// A printer sees what lies outside of the window too.
const drawAll = () => {
  for (const item of $('cards').children) drawCard(item.firstChild, Number(item.dataset.object));
};

function startGallery() {
  if (listed.size) $('order').prepend(new Option('mark next', 'next', true, true));
  addEventListener('beforeprint', drawAll);
  $('order').addEventListener('change', fillGallery);
  $('more').addEventListener('click', () => more()?.querySelector('button').focus());
  $('cards').addEventListener('keydown', pressed);
  $('cards').addEventListener('click', clicked);
  on('settled', () => {
    // A card that has the focus is not taken away under the user's hands.
    if (!$('cards').contains(document.activeElement)) fillGallery();
  });
  on('marked', () => {
    for (const item of $('cards').children) showVerdict(item);
  });
}
