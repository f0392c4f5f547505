// A playground, its machines, connections and tasks, and the questions that decide about them.

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

export const TASK_STATUSES = ['none', 'created', 'blocked', 'running', 'failed', 'completed'] as const;

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
export function runningFirst(all: Playground[]): Playground[] {
  const rank: Record<Condition, number> = { up: 0, starting: 1, unknown: 2, ending: 3, down: 4, gone: 5 };
  return [...all].sort((a, b) => rank[condition(a)] - rank[condition(b)]);
}
