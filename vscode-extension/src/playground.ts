// A playground with its machines, connections and tasks, and the conditions that the actions depend on.

export interface Machine {
  name: string;
  /** Its host name. The ssh configuration has it if the playground has several machines, see {@link sshHost}. */
  host: string;
  /** Its readable host name; empty if it has none. */
  alias: string;
  state: string;
  /** False if the platform does not allow SSH access, as on a hidden helper. Such a machine never becomes ready. */
  ssh: boolean;
  /** True if its SSH server answers. */
  ready: boolean;
  /** The user that ssh logs in as. */
  user: string;
}

/** A connection of this user to a playground, made by any program on this computer. */
export interface Connection {
  pid: number;
  phase: string;
  /** The beginning of its phase, in ms since 1970. */
  since: number;
  machine: string;
  /** The label of the container that it leads into, or `pod.` and the labels of one in a pod; empty for the machine itself. */
  container: string;
  user: string;
  /** The client's identification line. */
  client: string;
  /** The number of bytes sent to the machine. */
  sent: number;
  /** The number of bytes received from the machine. */
  received: number;
  /** The last round trip to the platform's end of its tunnel, or to the machine for a session that survives. */
  roundTripMs: number | undefined;
  /** How often the machine was out of reach and came back. */
  resumed: number;
  message: string;
}

export const TASK_STATUSES = ['none', 'created', 'blocked', 'running', 'failed', 'completed'] as const;

export type TaskStatus = (typeof TASK_STATUSES)[number] | 'unknown';

export interface Task {
  name: string;
  /** True for a task that prepares the playground. */
  init: boolean;
  /** True for a task that only supports other tasks. */
  helper: boolean;
  status: TaskStatus;
}

export const LEARNING_KINDS = ['challenge', 'tutorial', 'lesson'] as const;

/** The learning content that a playground belongs to. */
export interface Learning {
  kind: (typeof LEARNING_KINDS)[number];
  name: string;
  title: string;
  pageUrl: string;
}

/** A playground as `list --json` prints it. */
export interface Playground {
  id: string;
  title: string;
  state: string;
  /** The catalogue entry that it was started from. */
  template: { name: string; title: string };
  machines: Machine[];
  /** The end of its time, in ms since 1970. */
  endsAt: number | undefined;
  /** The end that it would have without the time that it was given while it was used, in ms since 1970. */
  keptSince: number | undefined;
  /** True if the platform stops it at that end, false if the platform erases it; undefined if the binary does not say. */
  persistent: boolean | undefined;
  pageUrl: string;
  host: string;
  /** Its readable host name, made of its title; empty if it has none. */
  alias: string;
  connections: Connection[];
  initTasks: { done: number; total: number } | undefined;
  tasks: Task[];
  /** True if the user stopped it deliberately and has not started it since. */
  stoppedOnPurpose: boolean;
  /** Undefined for a playground from the catalogue, and if the binary does not say. */
  learning: Learning | undefined;
  /** True if it belongs to a tutorial, a challenge or a course. Such a playground is not found by its catalogue name. */
  ofLesson: boolean;
}

/** The state of a playground, reduced to what the actions depend on. */
export type Condition = 'up' | 'starting' | 'ending' | 'down' | 'gone' | 'unknown';

/** The machines that allow SSH access. */
export const sshMachines = (of: Playground): Machine[] => of.machines.filter((one) => one.ssh);

/** The host name of a machine that the ssh configuration has. It names the machines of a playground only if there are several. */
export const sshHost = (of: Playground, machine: Machine | undefined): string =>
  machine && of.machines.length > 1 ? machine.host : of.host;

/** The host name for the user's eyes and commands: the readable one if there is one. Windows keep the one with the id. */
export const readableHost = (of: Playground, machine: Machine | undefined): string =>
  (machine && of.machines.length > 1 ? machine.alias : of.alias) || sshHost(of, machine);

/** True for a machine that is stopped, which it can be in a running playground, too. */
export const isOff = (machine: Machine): boolean => machine.state === 'STOPPING' || machine.state === 'STOPPED';

/** True if a machine can be asked for its containers. */
export const canHaveContainers = (of: Playground, machine: Machine): boolean =>
  of.state === 'RUNNING' && machine.ssh && machine.ready && !isOff(machine);

/**
 * The condition of a playground. A running one counts as starting until all machines that allow SSH access are ready, apart
 * from those that the user has stopped.
 */
export function condition(of: Playground): Condition {
  switch (of.state) {
    case 'RUNNING':
      return sshMachines(of).every((one) => one.ready || isOff(one)) ? 'up' : 'starting';
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

/** All init tasks of a running playground, until the last of them has completed. */
export function pendingTasks(of: Playground): Task[] {
  const now = condition(of);
  if (now !== 'up' && now !== 'starting') return [];
  const tasks = of.tasks.filter((one) => one.init);
  return tasks.every((one) => one.status === 'completed') ? [] : tasks;
}

/** The failed init tasks, once no init task is running. */
export function failedTasks(of: Playground): Task[] {
  const tasks = pendingTasks(of);
  return tasks.some((one) => one.status === 'running') ? [] : tasks.filter((one) => one.status === 'failed');
}

/** The tasks that the user is to solve. */
export const tasksToSolve = (of: Playground): Task[] => of.tasks.filter((one) => !one.init && !one.helper);

/** The tasks of a running playground that the tree shows: init tasks until all have completed, and those to solve. */
export function shownTasks(of: Playground): Task[] {
  const now = condition(of);
  return now === 'up' || now === 'starting' ? [...pendingTasks(of), ...tasksToSolve(of)] : [];
}

/** True if all tasks have completed, apart from helpers. A playground without tasks is never solved. */
export function isSolved(of: Playground): boolean {
  const tasks = of.tasks.filter((one) => !one.helper);
  return tasks.length > 0 && tasks.every((one) => one.status === 'completed');
}

/** Sorts running playgrounds first. Within a condition the order stays. */
export function runningFirst(all: Playground[]): Playground[] {
  const rank: Record<Condition, number> = { up: 0, starting: 1, unknown: 2, ending: 3, down: 4, gone: 5 };
  return [...all].sort((a, b) => rank[condition(a)] - rank[condition(b)]);
}

/** The shortest last round trip of a playground's connections, in ms. Those that wait for their machine do not count. */
export function latency(of: Playground): number | undefined {
  const trips = of.connections.filter((one) => one.phase !== 'away').map((one) => one.roundTripMs).filter((ms) => ms !== undefined);
  return trips.length === 0 ? undefined : Math.min(...trips);
}
