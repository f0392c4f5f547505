// Texts for times, sizes and states.

import type { Account } from './json';
import { type Condition, type Connection, type Machine, type Playground, type Task, type TaskStatus, condition, failedTasks, tasksToSolve } from './playground';

/** The time until `end`: "1h 05m", "12m" or "40s"; empty if there is no end or it has passed. */
export function timeLeft(end: number | undefined, now = Date.now()): string {
  if (end === undefined || end <= now) return '';
  const seconds = Math.floor((end - now) / 1000);
  if (seconds < 60) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}m`;
  return `${Math.floor(minutes / 60)}h ${String(minutes % 60).padStart(2, '0')}m`;
}

/** A moment on the clock of this computer. */
export function clock(moment: number): string {
  return new Date(moment).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
}

/** The time since `start`: "40s", "12m", "5h" or "3d"; empty if there is none. */
export function age(start: number | undefined, now = Date.now()): string {
  if (start === undefined) return '';
  const minutes = Math.floor(Math.max(now - start, 0) / 60_000);
  if (minutes < 1) return `${Math.floor(Math.max(now - start, 0) / 1000)}s`;
  if (minutes < 60) return `${minutes}m`;
  return minutes < 24 * 60 ? `${Math.floor(minutes / 60)}h` : `${Math.floor(minutes / 1440)}d`;
}

/** A number of things: "1 pod", "12 pods". */
export const count = (of: number, thing: string): string => `${of} ${thing}${of === 1 ? '' : 's'}`;

/** A number of bytes: "12 B", "3.4 KB", "56 MB". */
export function size(bytes: number): string {
  let value = bytes;
  for (const unit of ['B', 'KB', 'MB', 'GB']) {
    if (value < 1000 || unit === 'GB') return `${unit === 'B' || value >= 10 ? Math.round(value) : value.toFixed(1)} ${unit}`;
    value /= 1000;
  }
  return '';
}

/** A round trip: "0.4 ms", "23 ms". */
export const roundTrip = (ms: number): string => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;

/** Says since when a connection waits for its machine to be in reach again; empty if it is in reach. */
export function away({ phase, since }: Pick<Connection, 'phase' | 'since'>): string {
  if (phase !== 'away') return '';
  return `away since ${clock(since)}`;
}

/** Says how often a connection came back; empty if it was never away. */
export const resumed = (times: number): string => (times > 0 ? `resumed ${times === 1 ? 'once' : `${times} times`}` : '');

/** The name of a playground for the user. */
export const title = (of: Playground): string => of.title || of.template.name;

/** The end of a playground's time as the predicate of a sentence, "will be erased in 12m"; empty if none is ahead. */
export function end(of: Playground, now = Date.now()): string {
  const left = ['down', 'gone'].includes(condition(of)) ? '' : timeLeft(of.endsAt, now);
  if (left === '') return '';
  if (of.persistent === true) return `will be stopped in ${left}`;
  if (of.persistent === false) return `will be erased in ${left}`;
  return `ends in ${left} and will be erased unless it is persistent`;
}

const CONDITIONS: Record<Condition, string> = {
  up: 'running',
  starting: 'starting',
  ending: 'stopping',
  down: 'stopped',
  gone: 'gone',
  unknown: 'unknown',
};

/** The state of a playground. */
export function state(of: Playground): string {
  const now = condition(of);
  const failed = failedTasks(of);
  if (failed.length > 0) return `preparation failed: ${failed.map((one) => one.name).join(', ')}`;
  if (of.initTasks && of.initTasks.done < of.initTasks.total && (now === 'up' || now === 'starting')) {
    return `preparing ${of.initTasks.done}/${of.initTasks.total}`;
  }
  return now === 'gone' || now === 'unknown' ? of.state.toLowerCase().replaceAll('_', ' ') : CONDITIONS[now];
}

const TASKS: Record<TaskStatus, string> = {
  none: 'not started',
  created: 'not started',
  blocked: 'waiting for other tasks',
  running: 'running',
  failed: 'failed',
  completed: 'completed',
  unknown: 'status unknown',
};

/** The status of a task. One that the user is to solve is checked again and again, which the platform calls running. */
export const task = ({ init, status }: Pick<Task, 'init' | 'status'>): string => (status === 'running' && !init ? 'to do' : TASKS[status]);

/** The state of a machine that will be ready. */
export const booting = (of: Machine): string => (of.state === 'REBOOTING' ? 'rebooting' : 'booting');

/** The progress of tasks: "2/5 completed", "2/5 completed, 1 failed". */
export function progress(tasks: Task[]): string {
  const count = (status: TaskStatus): number => tasks.filter((one) => one.status === status).length;
  const failed = count('failed');
  return `${count('completed')}/${tasks.length} completed${failed === 0 ? '' : `, ${failed} failed`}`;
}

/** The progress of the tasks that the user is to solve: "2/5 tasks"; empty if there are none. */
export function solved(of: Playground): string {
  const tasks = tasksToSolve(of);
  if (tasks.length === 0) return '';
  return `${tasks.filter((one) => one.status === 'completed').length}/${tasks.length} tasks`;
}

/** The container of a connection: its label, or its namespace, pod and name. */
export const inside = (label: string): string => (label.startsWith('pod.') ? label.split('.').slice(1).join('/') : label);

/** The client of a connection, from its identification line: "OpenSSH 9.2". */
export function client(identification: string): string {
  const software = /^SSH-2\.0-(\S+)/.exec(identification)?.[1] ?? '';
  if (software === '') return 'connection';
  return software.replace(/p\d+$/, '').replaceAll('_', ' ');
}

/** Says who is logged in: "Logged in as ada at labs.iximiuz.com. Plan: premium until 1/2/2027. Region: eu." */
export function account({ id, name, platform, region, plan }: Account): string {
  const who = `Logged in as ${name || id} at ${platform.replace(/^https?:\/\//, '')}.`;
  const end = plan?.lifetime ? ', lifetime' : plan?.until ? ` until ${new Date(plan.until).toLocaleDateString()}` : '';
  return [who, `Plan: ${plan ? `${plan.trial ? 'trial' : 'premium'}${end}` : 'free'}.`, region && `Region: ${region}.`].filter(Boolean).join(' ');
}
