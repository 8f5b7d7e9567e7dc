// A to-do list kept as a log of events: the list is what the events add up to, so that undo, redo and
// synchronising two devices need no code of their own for each kind of change.

/**
 * @typedef {{ id: string, title: string, done: boolean, tags: string[] }} Task
 * @typedef {{ type: 'added', id: string, title: string }
 *   | { type: 'renamed', id: string, title: string }
 *   | { type: 'toggled', id: string }
 *   | { type: 'tagged', id: string, tag: string }
 *   | { type: 'removed', id: string }} Change
 * @typedef {{ at: number, device: string, sequence: number, change: Change }} Event
 */

/** Applies one change and returns a new map; changes to a task that is gone are ignored. */
export function apply(tasks, change) {
  const task = tasks.get(change.id);
  const next = new Map(tasks);
  switch (change.type) {
    case 'added':
      if (!task) {
        next.set(change.id, { id: change.id, title: change.title, done: false, tags: [] });
      }
      return next;
    case 'renamed':
      if (task) next.set(change.id, { ...task, title: change.title });
      return next;
    case 'toggled':
      if (task) next.set(change.id, { ...task, done: !task.done });
      return next;
    case 'tagged':
      if (task && !task.tags.includes(change.tag)) {
        next.set(change.id, { ...task, tags: [...task.tags, change.tag].sort() });
      }
      return next;
    case 'removed':
      next.delete(change.id);
      return next;
    default:
      throw new TypeError(`unknown change ${JSON.stringify(change)}`);
  }
}

/** Time first, then the device's name: two devices that merge the same events agree on the order. */
function compare(a, b) {
  return a.at - b.at || a.device.localeCompare(b.device) || a.sequence - b.sequence;
}

export class TodoStore {
  #device;
  #clock;
  #events = [];
  #undone = [];
  #sequence = 0;
  #listeners = new Set();

  constructor(device, clock = Date.now) {
    this.#device = device;
    this.#clock = clock;
  }

  /** The tasks in the order in which they were added. */
  get tasks() {
    const state = this.#events.reduce((tasks, event) => apply(tasks, event.change), new Map());
    return [...state.values()];
  }

  commit(change) {
    this.#undone = [];
    this.#sequence += 1;
    this.#events.push({
      at: this.#clock(),
      device: this.#device,
      sequence: this.#sequence,
      change,
    });
    this.#notify();
  }

  /** Takes back this device's latest event; returns whether there was one. */
  undo() {
    const index = this.#events.findLastIndex((event) => event.device === this.#device);
    if (index < 0) return false;
    this.#undone.push(...this.#events.splice(index, 1));
    this.#notify();
    return true;
  }

  redo() {
    const event = this.#undone.pop();
    if (!event) return false;
    this.#events.push(event);
    this.#events.sort(compare);
    this.#notify();
    return true;
  }

  /** Adds the events of another device that are not here yet. */
  merge(events) {
    const key = (event) => `${event.device}/${event.sequence}`;
    const known = new Set(this.#events.map(key));
    const fresh = events.filter((event) => !known.has(key(event)));
    if (fresh.length === 0) return 0;
    this.#events.push(...fresh);
    this.#events.sort(compare);
    this.#notify();
    return fresh.length;
  }

  export() {
    return structuredClone(this.#events);
  }

  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #notify() {
    const tasks = this.tasks;
    for (const listener of this.#listeners) {
      listener(tasks);
    }
  }
}

/** Parses `buy milk #home #today` into a title and its tags. */
export function parseInput(line) {
  const tags = [...line.matchAll(/(?:^|\s)#([\p{L}\p{N}_-]+)/gu)].map((match) => match[1]);
  const title = line.replace(/(?:^|\s)#[\p{L}\p{N}_-]+/gu, '').trim();
  return { title, tags: [...new Set(tags)] };
}
