// The JSON of `labctl-ssh-proxy`, read leniently: missing fields are empty, and unknown ones are ignored.

/** A machine of a playground. */
export interface Machine {
  name: string;
  /** Its name in the ssh configuration. */
  host: string;
  state: string;
  /** False where the platform allows no SSH access, as to a hidden helper. Such a machine is never ready. */
  ssh: boolean;
  /** Its SSH server answers. */
  ready: boolean;
  /** The user that ssh logs in as. */
  user: string;
}

/** A connection that this user has to a playground, from any program. */
export interface Connection {
  pid: number;
  phase: string;
  /** Since when, in ms since 1970. */
  since: number;
  machine: string;
  user: string;
  /** The client's identification line. */
  client: string;
  /** Bytes sent to the machine. */
  sent: number;
  /** Bytes received from it. */
  received: number;
  roundTripMs: number | undefined;
  message: string;
}

const TASK_STATUSES = ['none', 'created', 'blocked', 'running', 'failed', 'completed'] as const;

export type TaskStatus = (typeof TASK_STATUSES)[number] | 'unknown';

/** A task of a playground. */
export interface Task {
  name: string;
  /** It prepares the playground, which is of full use only after it has completed. */
  init: boolean;
  /** It only serves other tasks. */
  helper: boolean;
  status: TaskStatus;
}

/** A playground as `list --json` shows it. */
export interface Playground {
  id: string;
  title: string;
  state: string;
  /** The catalogue entry it was started from. */
  template: { name: string; title: string };
  machines: Machine[];
  createdAt: string;
  /** The end of its time, in ms since 1970. */
  endsAt: number | undefined;
  /** At that end the platform stops and keeps it; unless this is true, it erases it. Undefined where it is not known. */
  persistent: boolean | undefined;
  pageUrl: string;
  host: string;
  connections: Connection[];
  initTasks: { done: number; total: number } | undefined;
  tasks: Task[];
  /** It was stopped on purpose and has not been asked for since. */
  stoppedOnPurpose: boolean;
  /** It belongs to a tutorial, a challenge or a course, and is not found by its catalogue entry's name. */
  ofLesson: boolean;
}

/** An entry of the catalogue. */
export interface CatalogEntry {
  name: string;
  title: string;
  description: string;
  /** The author; empty for the platform's own entries. */
  owner: string;
  categories: string[];
}

/** One line of `list --watch --json`. */
export type WatchLine =
  | { type: 'playgrounds'; playgrounds: Playground[] }
  | { type: 'error'; kind: string; message: string; hint: string }
  | { type: 'other' };

type Fields = Record<string, unknown>;

const fields = (value: unknown): Fields => (typeof value === 'object' && value !== null ? (value as Fields) : {});
const list = (value: unknown): unknown[] => (Array.isArray(value) ? (value as unknown[]) : []);
const text = (value: unknown): string => (typeof value === 'string' ? value : '');
const number = (value: unknown): number | undefined => (typeof value === 'number' ? value : undefined);

function machine(value: unknown): Machine {
  const it = fields(value);
  const users = list(it['users']).map(fields);
  const user = users.find((one) => one['default'] === true) ?? users[0];
  return {
    name: text(it['name']),
    host: text(it['host']),
    state: text(it['state']),
    ssh: it['ssh'] !== false,
    ready: it['ready'] === true,
    user: text(user?.['name']) || 'root',
  };
}

function task(value: unknown): Task {
  const it = fields(value);
  return {
    name: text(it['name']),
    init: it['init'] === true,
    helper: it['helper'] === true,
    status: TASK_STATUSES.find((one) => one === it['status']) ?? 'unknown',
  };
}

function connection(value: unknown): Connection {
  const it = fields(value);
  return {
    pid: number(it['pid']) ?? 0,
    phase: text(it['phase']),
    since: number(it['since']) ?? 0,
    machine: text(it['machine']),
    user: text(it['user']),
    client: text(it['client']),
    sent: number(it['sent']) ?? 0,
    received: number(it['received']) ?? 0,
    roundTripMs: number(it['roundTripMs']),
    message: text(it['message']),
  };
}

/** Reads a playground; `now` is the time of the answer, in ms since 1970. */
export function playground(value: unknown, now = Date.now()): Playground {
  const it = fields(value);
  const template = fields(it['playground']);
  const left = number(it['expiresIn']) ?? 0;
  const initTasks = fields(it['initTasks']);
  const total = number(initTasks['total']) ?? 0;
  return {
    id: text(it['id']),
    title: text(it['title']),
    state: text(it['state']),
    template: { name: text(template['name']), title: text(template['title']) },
    machines: list(it['machines']).map(machine),
    createdAt: text(it['createdAt']),
    endsAt: left > 0 ? now + left * 1000 : undefined,
    persistent: typeof it['persistent'] === 'boolean' ? it['persistent'] : undefined,
    pageUrl: text(it['pageUrl']),
    host: text(it['host']),
    connections: list(it['connections']).map(connection),
    initTasks: total > 0 ? { done: number(initTasks['done']) ?? 0, total } : undefined,
    tasks: list(it['tasks']).map(task).filter((one) => one.name !== ''),
    stoppedOnPurpose: it['stoppedOnPurpose'] === true,
    ofLesson: ['tutorialName', 'challengeName', 'courseName', 'lessonPath'].some((name) => text(it[name]) !== ''),
  };
}

/** Reads the answer of `list --json`. Throws when it is not JSON or no list. */
export function playgrounds(json: string, now = Date.now()): Playground[] {
  return array(json).map((one) => playground(one, now));
}

/** Reads the answer of `start --json`. Throws when it is not JSON. */
export const started = (json: string): Playground => playground(JSON.parse(json));

/** Reads the answer of `catalog --json`. Throws when it is not JSON or no list. */
export function catalog(json: string): CatalogEntry[] {
  return array(json).map((value) => {
    const it = fields(value);
    return {
      name: text(it['name']),
      title: text(it['title']),
      description: text(it['description']),
      owner: text(it['owner']),
      categories: list(it['categories']).map(text),
    };
  });
}

/** Reads one line of `list --watch --json`. Throws when it is not JSON. */
export function watchLine(json: string, now = Date.now()): WatchLine {
  const it = fields(JSON.parse(json));
  switch (it['type']) {
    case 'playgrounds':
      return { type: 'playgrounds', playgrounds: list(it['playgrounds']).map((one) => playground(one, now)) };
    case 'error':
      return { type: 'error', kind: text(it['kind']), message: text(it['message']), hint: text(it['hint']) };
    default:
      return { type: 'other' };
  }
}

function array(json: string): unknown[] {
  const value: unknown = JSON.parse(json);
  if (!Array.isArray(value)) throw new Error('no list');
  return value as unknown[];
}

/** The state of a playground, as far as it decides about the actions on it. */
export type Condition = 'up' | 'starting' | 'ending' | 'down' | 'gone' | 'unknown';

/** The machines that can be connected to. */
export const sshMachines = (of: Playground): Machine[] => of.machines.filter((one) => one.ssh);

/** The condition of a playground. A running one is starting until all machines that allow SSH access answer. */
export function condition(of: Playground): Condition {
  switch (of.state) {
    case 'RUNNING':
      return sshMachines(of).every((one) => one.ready) ? 'up' : 'starting';
    case 'CREATED':
    case 'WARMING_UP':
    case 'WARMED_UP':
    case 'STARTING':
      return 'starting';
    case 'STOPPING':
    case 'DESTROYING':
      return 'ending';
    case 'STOPPED':
      return 'down';
    case 'DESTROYED':
    case 'FAILED':
      return 'gone';
    default:
      return 'unknown';
  }
}

/** The init tasks of a playground that is being prepared or whose preparation has failed; empty once all have completed. */
export function pendingTasks(of: Playground): Task[] {
  const now = condition(of);
  if (now !== 'up' && now !== 'starting') return [];
  const tasks = of.tasks.filter((one) => one.init);
  return tasks.every((one) => one.status === 'completed') ? [] : tasks;
}

/** The init tasks that have failed, once none is running any more. */
export function failedTasks(of: Playground): Task[] {
  const tasks = pendingTasks(of);
  return tasks.some((one) => one.status === 'running') ? [] : tasks.filter((one) => one.status === 'failed');
}

/** Sorts running playgrounds first and otherwise keeps their order. */
export function inOrder(all: Playground[]): Playground[] {
  const rank: Record<Condition, number> = { up: 0, starting: 1, unknown: 2, ending: 3, down: 4, gone: 5 };
  return [...all].sort((a, b) => rank[condition(a)] - rank[condition(b)]);
}
