// Readers of the binary's JSON. They are lenient: a missing field is empty, and an unknown one is ignored.

import { isHost, isPodHost } from './authority';
import { type Container, type ContainerPort, type Found, inOrder } from './containers';
import { describedFailure } from './failure';
import { type Connection, LEARNING_KINDS, type Learning, type Machine, type Playground, TASK_STATUSES, type Task } from './playground';
import { type ClusterNews, type KubeNode, type Pod, type PodContainer, ROLES, STATES } from './pods';
import type { Exposure, Port, PortList, Shell } from './ports';

export interface CatalogEntry {
  name: string;
  title: string;
  description: string;
  /** The author; empty for entries of the platform itself. */
  owner: string;
  /** The choices of its start. */
  conditions: Condition[];
}

/** A choice of a start. */
export interface Condition {
  key: string;
  /** Its default; empty for none. */
  initial: string;
  /** The values to choose from; empty if it is free. */
  options: string[];
  placeholder: string;
  /** The regular expression of a free value; empty for none. */
  pattern: string;
  /** True if it may be left out. */
  optional: boolean;
}

/** The account that is logged in. */
export interface Account {
  id: string;
  /** Its name at GitHub; empty if the platform has none. */
  name: string;
  platform: string;
  /** The region of new playgrounds; empty if none is chosen. */
  region: string;
  /** Its plan; undefined for none. */
  plan: { trial: boolean; lifetime: boolean; until: string } | undefined;
}

/** A line of `list --watch --json`. */
export type WatchLine =
  | { type: 'playgrounds'; playgrounds: Playground[] }
  | { type: 'error'; kind: string; message: string; hint: string }
  | { type: 'other' };

/** A line of `port-forward --json` with a single port-forward. */
export type ForwardLine =
  | { event: 'listening'; localPort: number }
  | { event: 'traffic'; open: number; sent: number; received: number }
  | { event: 'waiting' | 'problem'; message: string }
  | { event: 'other' };

type Fields = Record<string, unknown>;

const fields = (value: unknown): Fields => (typeof value === 'object' && value !== null ? (value as Fields) : {});
const list = (value: unknown): unknown[] => (Array.isArray(value) ? (value as unknown[]) : []);
const text = (value: unknown): string => (typeof value === 'string' ? value : '');
const number = (value: unknown): number | undefined => (typeof value === 'number' ? value : undefined);

/** Reads a playground. `now` is the time of the output, in ms since 1970. */
export function readPlayground(value: unknown, now = Date.now()): Playground {
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
    machines: list(it['machines']).map(readMachine),
    endsAt: left > 0 ? now + left * 1000 : undefined,
    keptSince: number(fields(it['kept'])['firstEnd']),
    persistent: typeof it['persistent'] === 'boolean' ? it['persistent'] : undefined,
    pageUrl: text(it['pageUrl']),
    host: text(it['host']),
    alias: text(it['alias']),
    connections: list(it['connections']).map(readConnection),
    initTasks: total > 0 ? { done: number(initTasks['done']) ?? 0, total } : undefined,
    tasks: list(it['tasks']).map(readTask).filter((one) => one.name !== ''),
    stoppedOnPurpose: it['stoppedOnPurpose'] === true,
    learning: readLearning(it['learning']),
    ofLesson:
      text(fields(it['learning'])['kind']) !== '' ||
      ['tutorialName', 'challengeName', 'courseName', 'lessonPath'].some((name) => text(it[name]) !== ''),
  };
}

function readLearning(value: unknown): Learning | undefined {
  const it = fields(value);
  const kind = LEARNING_KINDS.find((one) => one === it['kind']);
  return kind && { kind, name: text(it['name']), title: text(it['title']), pageUrl: text(it['pageUrl']) };
}

function readMachine(value: unknown): Machine {
  const it = fields(value);
  const users = list(it['users']).map(fields);
  const user = users.find((one) => one['default'] === true) ?? users[0];
  return {
    name: text(it['name']),
    host: text(it['host']),
    alias: text(it['alias']),
    state: text(it['state']),
    ssh: it['ssh'] !== false,
    ready: it['ready'] === true,
    user: text(user?.['name']) || 'root',
  };
}

function readTask(value: unknown): Task {
  const it = fields(value);
  return {
    name: text(it['name']),
    init: it['init'] === true,
    helper: it['helper'] === true,
    status: TASK_STATUSES.find((one) => one === it['status']) ?? 'unknown',
  };
}

function readConnection(value: unknown): Connection {
  const it = fields(value);
  return {
    pid: number(it['pid']) ?? 0,
    phase: text(it['phase']),
    since: number(it['since']) ?? 0,
    machine: text(it['machine']),
    container: text(it['container']),
    user: text(it['user']),
    client: text(it['client']),
    sent: number(it['sent']) ?? 0,
    received: number(it['received']) ?? 0,
    roundTripMs: number(it['roundTripMs']),
    resumed: number(it['resumed']) ?? 0,
    message: text(it['message']),
  };
}

/** Reads the output of `list --json`. Throws if it is not JSON or not a list. */
export const readList = (json: string, now = Date.now()): Playground[] => parseList(json).map((one) => readPlayground(one, now));

/** Reads the output of `start --json`. Throws if it is not JSON. */
export const readStarted = (json: string): Playground => readPlayground(JSON.parse(json));

/** Reads the output of `whoami --json`. Throws if it is not JSON. */
export function readAccount(json: string): Account {
  const it = fields(JSON.parse(json));
  const plan = fields(it['premiumAccess']);
  return {
    id: text(it['id']),
    name: text(it['githubProfileId']),
    platform: text(it['baseUrl']),
    region: text(it['preferredRegion']),
    plan: typeof it['premiumAccess'] !== 'object' || it['premiumAccess'] === null ? undefined : { trial: plan['trial'] === true, lifetime: plan['lifetime'] === true, until: text(plan['until']) },
  };
}

/** Reads the output of `catalog --json`. Throws if it is not JSON or not a list. */
export function readCatalog(json: string): CatalogEntry[] {
  return parseList(json).map((value) => {
    const it = fields(value);
    const conditions = list(fields(it['initConditions'])['values']).map(readCondition).filter((one) => one.key !== '');
    return { name: text(it['name']), title: text(it['title']), description: text(it['description']), owner: text(it['owner']), conditions };
  });
}

function readCondition(value: unknown): Condition {
  const it = fields(value);
  return {
    key: text(it['key']),
    initial: text(it['default']),
    options: list(it['options']).filter((one) => typeof one === 'string'),
    placeholder: text(it['placeholder']),
    pattern: text(it['validationRegex']),
    optional: it['nullable'] === true,
  };
}

/** Reads the output of `machine console --json`. Throws if it is not JSON. */
export const readConsole = (json: string): string => text(fields(JSON.parse(json))['content']);

/** Reads the output of `ports --json`. Throws if it is not JSON. */
export function readPorts(json: string): PortList {
  const it = fields(JSON.parse(json));
  const problems = list(it['problems']).map((one) => text(fields(one)['message'])).filter((message) => message !== '');
  return { ports: list(it['ports']).map(readPort), shells: list(it['shells']).map(readShell), problems };
}

function readPort(value: unknown): Port {
  const it = fields(value);
  const { protocol } = it;
  return {
    machine: text(it['machine']),
    number: number(it['number']) ?? 0,
    protocol: protocol === 'http' || protocol === 'https' || protocol === 'tcp' ? protocol : undefined,
    listening: typeof it['listening'] === 'boolean' ? it['listening'] : undefined,
    loopbackOnly: it['loopbackOnly'] === true,
    exposures: list(it['exposed']).map(readExposure),
    forwards: list(it['forwards']).map(fields).map((one) => ({ local: text(one['local']), pid: number(one['pid']) ?? 0 })),
    saved: list(it['saved']).map((one) => text(fields(one)['local'])).filter((local) => local !== ''),
  };
}

function readExposure(value: unknown): Exposure {
  const it = fields(value);
  return { id: text(it['id']), url: text(it['url']), access: text(it['access']) };
}

function readShell(value: unknown): Shell {
  const it = fields(value);
  return { ...readExposure(value), machine: text(it['machine']), user: text(it['user']) };
}

/** Reads the output of `expose --json`. Throws if it is not JSON. */
export const readExposed = (json: string): Exposure => readExposure(JSON.parse(json));

/** Reads a line of `list --watch --json`. Throws if it is not JSON. */
export function readWatchLine(json: string, now = Date.now()): WatchLine {
  const it = fields(JSON.parse(json));
  switch (it['type']) {
    case 'playgrounds':
      return { type: 'playgrounds', playgrounds: list(it['playgrounds']).map((one) => readPlayground(one, now)) };
    case 'error':
      return { type: 'error', kind: text(it['kind']), message: text(it['message']), hint: text(it['hint']) };
    default:
      return { type: 'other' };
  }
}

/** Reads a line of `port-forward --json`. A line that is not JSON counts as an unknown event. */
export function readForwardLine(json: string): ForwardLine {
  let it: Fields;
  try {
    it = fields(JSON.parse(json));
  } catch {
    return { event: 'other' };
  }
  switch (it['event']) {
    case 'listening':
      return { event: 'listening', localPort: Number(/:(\d+)$/.exec(text(it['address']))?.[1] ?? 0) };
    case 'traffic':
      return { event: 'traffic', open: number(it['open']) ?? 0, sent: number(it['sent']) ?? 0, received: number(it['received']) ?? 0 };
    case 'waiting':
    case 'problem':
      return { event: it['event'], message: text(it['message']) };
    default:
      return { event: 'other' };
  }
}

/** Reads a line of `containers --watch --json`. Returns undefined for news of another kind. Throws if it is not JSON. */
export function readContainers(json: string): Found | undefined {
  const it = fields(JSON.parse(json));
  if (it['error'] !== undefined && it['error'] !== null) {
    const { kind, message, hint } = fields(it['error']);
    return { list: undefined, failure: describedFailure(text(kind), shown(message) || 'the containers are not known', shown(hint)) };
  }
  if (!Array.isArray(it['containers'])) return undefined;
  // VS Code shows nothing at all if two items have the same id.
  const byId = new Map(list(it['containers']).map(readContainer).map((one) => [one.id, one]));
  byId.delete('');
  return { list: inOrder([...byId.values()]), failure: undefined };
}

function readContainer(value: unknown): Container {
  const it = fields(value);
  // Both become arguments of commands, and parts of a link.
  const host = text(it['host']);
  const isReachable = isHost(host) && host.endsWith(`.${text(it['label'])}`);
  const pod = fields(it['pod']);
  return {
    id: shown(it['id']),
    name: shown(it['name']),
    label: isReachable ? text(it['label']) : '',
    host: isReachable ? host : '',
    image: shown(it['image']),
    state: shown(it['state']).toLowerCase(),
    status: shown(it['status']),
    engine: shown(it['engine']),
    pod: text(pod['name']) === '' ? undefined : { namespace: shown(pod['namespace']), name: shown(pod['name']) },
    ports: list(it['ports']).map(readContainerPort).filter((one) => one.container > 0),
  };
}

function readContainerPort(value: unknown): ContainerPort {
  const it = fields(value);
  return { container: number(it['container']) ?? 0, protocol: shown(it['protocol']), address: shown(it['address']), machine: number(it['machine']) };
}

/** Reads a line of `pods --watch --json`. Returns undefined for news of another kind. Throws if it is not JSON. */
export function readPods(json: string): ClusterNews | undefined {
  const it = fields(JSON.parse(json));
  if (it['error'] !== undefined && it['error'] !== null) {
    const { kind, message, hint } = fields(it['error']);
    return { failure: describedFailure(text(kind), shown(message) || 'the pods are not known', shown(hint)) };
  }
  const news: ClusterNews = {};
  if (Array.isArray(it['nodes'])) news.nodes = list(it['nodes']).map(readKubeNode).filter((one) => one.name !== '');
  if (Array.isArray(it['pods'])) news.pods = list(it['pods']).map(readPod).filter((one) => one.name !== '');
  const pod = readPod(it['pod']);
  if (pod.name !== '') news.pod = pod;
  const gone = fields(it['gone']);
  if (text(gone['name']) !== '') news.gone = { namespace: shown(gone['namespace']), name: shown(gone['name']) };
  return Object.keys(news).length === 0 ? undefined : news;
}

function readKubeNode(value: unknown): KubeNode {
  const it = fields(value);
  return { name: shown(it['name']), ready: it['ready'] === true };
}

function readPod(value: unknown): Pod {
  const it = fields(value);
  const owner = fields(it['owner']);
  const since = Date.parse(text(it['since']));
  const containers = list(it['containers']).map(readPodContainer).filter((one) => one.name !== '');
  return {
    namespace: shown(it['namespace']),
    name: shown(it['name']),
    host: podHost(it['host']),
    node: shown(it['node']),
    owner: `${shown(owner['kind'])} ${shown(owner['name'])}`.trim(),
    status: shown(it['status']),
    message: shown(it['message']),
    failing: it['failing'] === true,
    ready: number(it['ready']) ?? 0,
    total: number(it['total']) ?? 0,
    restarts: number(it['restarts']) ?? 0,
    since: Number.isNaN(since) ? undefined : since,
    // VS Code shows nothing at all if two items have the same id.
    containers: [...new Map(containers.map((one) => [one.name, one])).values()],
  };
}

function readPodContainer(value: unknown): PodContainer {
  const it = fields(value);
  return {
    name: shown(it['name']),
    role: ROLES.find((one) => one === it['role']) ?? 'regular',
    host: podHost(it['host']),
    image: shown(it['image']),
    state: STATES.find((one) => one === it['state']) ?? 'unknown',
    title: shown(it['title']),
    reason: shown(it['reason']),
    message: shown(it['message']),
    running: it['running'] === true,
    failing: it['failing'] === true,
    exitCode: number(it['exitCode']),
    restarts: number(it['restarts']) ?? 0,
    target: shown(it['target']),
    ports: list(it['ports']).map(readPodPort).filter((one) => one.container > 0),
  };
}

function readPodPort(value: unknown): ContainerPort {
  const it = fields(value);
  return { container: number(it['port']) ?? 0, protocol: shown(it['protocol']).toLowerCase(), address: '', machine: undefined };
}

/** The host name of a pod or of a container in one, which becomes an argument of commands, and a part of a link. */
const podHost = (value: unknown): string => (isPodHost(text(value)) ? text(value) : '');

/** Reads a text that a stranger may have written: without characters that control a line or its direction, and not endless. */
const shown = (value: unknown): string => text(value).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '\ufffd').slice(0, 500);

function parseList(json: string): unknown[] {
  const value: unknown = JSON.parse(json);
  if (!Array.isArray(value)) throw new Error('not a list');
  return value as unknown[];
}
