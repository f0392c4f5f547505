// The pods of a cluster: read, watched, shown, opened, debugged.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { beforeEach, describe, expect, it } from 'vitest';
import type { TreeItem, Uri } from 'vscode';
import { isPodHost } from '../../src/authority';
import { Documents } from '../../src/documents';
import * as format from '../../src/format';
import { readPods } from '../../src/json';
import type { Playground } from '../../src/playground';
import { type Pod, type PodContainer, STATES, looksLikeCluster } from '../../src/pods';
import { prewake } from '../../src/prewake';
import type { Node } from '../../src/tree';
import { podContainerItem, podContainerLook, podItem } from '../../src/tree/clusteritems';
import { type ApiPod, type Status, containerTooltip, reprContainerStatus } from './kexp.mts';
import { commands, terminals, user, window } from './vscode';
import { acting, binary, folder, listed, menuOf, one, program, until, viewOn } from './world';

const ID = '0123456789abcdef01234567';
const [machine] = listed()['machines'] as Record<string, unknown>[];
/** A playground whose machines say that it has a cluster. */
const k3s = (more: Record<string, unknown> = {}): Record<string, unknown> =>
  listed({ title: 'Try k3s', playground: { name: 'k3s', title: 'K3s', owner: '' }, machines: ['cplane-01', 'node-01'].map((name) => ({ ...machine, name, host: `playground-${ID}.${name}` })), ...more });

const container = (pod: string, name: string, more: Record<string, unknown> = {}): Record<string, unknown> => ({
  name, role: 'regular', host: `playground-${ID}.pod.default.${pod}.${name}`, image: 'nginx:alpine', state: 'ready', title: 'Running and ready', reason: '', message: '',
  running: true, failing: false, exitCode: null, restarts: 0, since: '', target: null, ports: [], ...more,
});
const pod = (name: string, more: Record<string, unknown> = {}): Record<string, unknown> => ({
  namespace: 'default', name, host: `playground-${ID}.pod.default.${name}`, node: 'node-01', owner: null, status: 'Running', message: '', failing: false, ready: 1, total: 1,
  restarts: 0, since: '', containers: [container(name, 'app')], ...more,
});
const system = (name: string, more: Record<string, unknown> = {}): Record<string, unknown> => pod(name, { namespace: 'kube-system', host: `playground-${ID}.pod.kube-system.${name}`, ...more });
const nodes = ['cplane-01', 'node-01'].map((name) => ({ name, ready: true }));
const all = (...pods: unknown[]): string => JSON.stringify({ nodes, pods });
const failure = (message: string, kind = 'program', hint = ''): string => JSON.stringify({ error: { kind, message, hint } });
const read = (name: string, more?: Record<string, unknown>): Pod => readPods(all(pod(name, more)))?.pods?.[0] as Pod;
const readContainer = (more: Record<string, unknown> = {}, name = 'app'): PodContainer => read('web-0', { containers: [container('web-0', name, more)] }).containers[0] as PodContainer;

beforeEach(() => {
  Object.assign(user, { settings: {}, known: {}, answer: undefined, answers: [], asked: [], offered: [], cancels: false, clipboard: '' });
  commands.ran = [];
  terminals.length = 0;
  window.documents = [];
});

describe('pods in JSON', () => {
  it('are read leniently', () => {
    for (const text of ['{}', 'null', '7', '{"pods":7}', '{"error":null}', '{"pod":{}}', '{"gone":{}}', '{"new":1}']) expect(readPods(text)).toBeUndefined();
    expect(() => readPods('<html>')).toThrow();
    expect(readPods('{"pods":[null,{},7,{"name":"a","containers":[{},{"name":"c","role":"new","state":"new","ports":[{}]}]}]}')?.pods).toEqual([
      {
        namespace: '', name: 'a', host: '', node: '', owner: '', status: '', message: '', failing: false, ready: 0, total: 0, restarts: 0, since: undefined,
        containers: [{
          name: 'c', role: 'regular', host: '', image: '', state: 'unknown', title: '', reason: '', message: '', running: false, failing: false, exitCode: undefined,
          restarts: 0, target: '', ports: [],
        }],
      },
    ]);
    expect(readPods(failure('no cluster', 'not-found', 'start it'))?.failure).toMatchObject({ message: 'no cluster', hint: 'start it', isFinal: true });
    expect(readPods('{"error":{}}')?.failure?.message).toBe('the pods are not known');
    expect(readPods('{"gone":{"namespace":"n","name":"p"}}')).toEqual({ gone: { namespace: 'n', name: 'p' } });
    expect(readPods('{"nodes":[{"name":"n","ready":false}]}')).toEqual({ nodes: [{ name: 'n', ready: false }] });
  });

  it('bring no text that controls a line, a link or a command', () => {
    const hostile = readContainer({ image: 'a\nb\u001b[31m\u202egpj', reason: 'r\r', message: 'm'.repeat(9000), host: '-oProxyCommand=id' });
    expect(hostile).toMatchObject({ image: 'a\ufffdb\ufffd[31m\ufffdgpj', reason: 'r\ufffd', host: '' });
    expect(hostile.message.length).toBe(500);
    for (const host of ['example.org', `playground-${ID}.docker-01.web`, `playground-${ID}.pod.a.$(id)`, `playground-${ID}.pod.a.b.c.d`, 7]) expect(read('web-0', { host }).host).toBe('');
    expect(isPodHost(read('web-0').host)).toBe(true);
  });

  it('never have the same container twice, because VS Code then shows nothing at all', () => {
    expect(read('web-0', { containers: [container('web-0', 'app'), container('web-0', 'app')] }).containers.length).toBe(1);
  });
});

/** Pods as the API has them, with one container in each state of k'exp's table, for each role. */
const SEEN: Omit<Status, 'name'>[] = [
  { state: { waiting: { reason: 'ContainerCreating' } } },
  { state: { waiting: { reason: 'CrashLoopBackOff', message: 'back-off 5m0s restarting failed container' } } },
  { state: { waiting: {} } },
  { state: { running: {} }, started: false, ready: false },
  { state: { running: {} }, started: true, ready: false },
  { state: { running: {} }, started: true, ready: true },
  { state: { terminated: { exitCode: 0, reason: 'Completed' } } },
  { state: { terminated: { exitCode: 137, reason: 'OOMKilled', message: 'too much' } } },
  { state: { terminated: { exitCode: 1, message: 'it hurts' } } },
  {},
  { state: {} },
];
const KINDS = ['init', 'sidecar', 'regular', 'ephemeral'] as const;
const FIELDS = { init: 'initContainerStatuses', sidecar: 'initContainerStatuses', regular: 'containerStatuses', ephemeral: 'ephemeralContainerStatuses' } as const;
const TABLE = KINDS.flatMap((kind) => [
  ...SEEN.map((seen): [typeof kind, ApiPod] => [kind, { status: { [FIELDS[kind]]: [{ name: 'app', ...seen }] } }]),
  [kind, { status: {} }] as [typeof kind, ApiPod], [kind, {}] as [typeof kind, ApiPod],
]);

describe("a container of a pod, by k'exp's table", () => {
  it.each(TABLE)('%s: %j', (role, api) => {
    const { status: state, title, reason = '', message = '' } = reprContainerStatus(api, 'app', { kind: role });
    const running = ['starting', 'not-ready', 'ready'].includes(state);
    const read = readContainer({ role, state, title, reason, message, running });
    const item = podContainerItem(one(), readPodOf(), read);
    expect((item.tooltip as string).split('\n')[0]).toBe(containerTooltip(api, 'app', role));
    // Its colours are ours: green, yellow, red and grey.
    const colors = { 'waiting': 'yellow', 'starting': 'yellow', 'not-ready': 'yellow', 'ready': 'green', 'terminated-ko': 'red' } as Partial<Record<string, string>>;
    const color = role === 'ephemeral' && state === 'ready' ? 'blue' : colors[state];
    expect(podContainerLook(read)[1]).toBe(color === undefined ? 'disabledForeground' : `charts.${color}`);
    expect(podContainerLook(read)[0] === 'debug-alt').toBe(role === 'ephemeral');
    expect(item.contextValue).toBe(`podContainer.${running ? 'up' : 'down'}.${role}`);
  });

  it('knows all of its states', () => {
    const states = new Set(TABLE.map(([kind, api]) => reprContainerStatus(api, 'app', { kind }).status));
    expect([...states].sort()).toEqual([...STATES].sort());
  });
});

const readPodOf = (): Pod => read('web-0');

describe('a container of a pod in the tree', () => {
  const item = (more: Record<string, unknown>, name?: string): TreeItem => podContainerItem(one(), readPodOf(), readContainer(more, name));

  it.each([
    [{}, 'ready · nginx:alpine'],
    [{ role: 'init', state: 'terminated-ok', running: false, exitCode: 0, reason: 'Completed' }, 'init · done (0) · nginx:alpine'],
    [{ role: 'init', state: 'ready' }, 'init · running · nginx:alpine'],
    [{ role: 'sidecar' }, 'sidecar · ready · nginx:alpine'],
    [{ role: 'ephemeral', target: 'app', image: 'busybox:musl' }, 'ephemeral, debugs app · running · busybox:musl'],
    [{ role: 'ephemeral', state: 'terminated-ko', running: false, exitCode: 130, reason: 'Error' }, 'ephemeral · failed (130) · nginx:alpine'],
    [{ state: 'waiting', reason: 'CrashLoopBackOff', running: false, failing: true, restarts: 5 }, 'CrashLoopBackOff · 5 restarts · nginx:alpine'],
    [{ state: 'waiting', running: false }, 'waiting · nginx:alpine'],
    [{ state: 'terminated-ko', running: false, exitCode: 137, reason: 'OOMKilled', restarts: 1 }, 'OOMKilled (137) · 1 restart · nginx:alpine'],
    [{ state: 'not-ready', image: '' }, 'not ready'],
    [{ state: 'new' }, 'unknown · nginx:alpine'],
  ])('says its part and its state: %j', (more, description) => {
    expect(item(more).description).toBe(description);
  });

  it('is red if it waits in vain', () => {
    expect(podContainerLook(readContainer({ state: 'waiting', failing: true }))).toEqual(['error', 'charts.red']);
  });

  it('has a tooltip that is no markdown', () => {
    const ports = [{ port: 80, protocol: 'TCP', name: 'http' }, { port: 53, protocol: 'UDP', name: '' }];
    expect(item({ title: '[x](command:a) <b>', ports }).tooltip).toBe(`app: [x](command:a) <b>\nImage: nginx:alpine\nPorts: 80/tcp, 53/udp\nssh playground-${ID}.pod.default.web-0.app`);
    expect(item({ host: '' }).tooltip).toMatch(/It has no host name/);
    expect(item({}).accessibilityInformation?.label).toBe('Container app of pod web-0, ready · nginx:alpine');
  });

  it('has the actions that suit it', () => {
    expect(menuOf('podContainer.up.regular', 'inline')).toEqual(['terminal', 'open', 'containerLog']);
    expect(menuOf('podContainer.up.regular', '1')).toEqual(['open', 'openNew', 'terminal']);
    expect(menuOf('podContainer.up.regular', '2')).toEqual(['forward', 'copySsh']);
    expect(menuOf('podContainer.up.regular', '3')).toEqual(['containerLog', 'spec']);
    expect(menuOf('podContainer.up.regular', '4')).toEqual(['debug']);
    for (const role of ['init', 'ephemeral']) expect(menuOf(`podContainer.up.${role}`, '4')).toEqual([]);
    expect(menuOf('podContainer.down.regular')).toEqual(['containerLog', 'containerLog', 'spec']);
    expect(menuOf('pod.up')).toEqual(['terminal', 'containerLog', 'open', 'openNew', 'terminal', 'forward', 'containerLog', 'debug', 'copySsh']);
    expect(menuOf('pod.down')).toEqual(['containerLog', 'containerLog']);
    // Without a host name, no command has a name for it.
    expect([menuOf(item({ host: '' }).contextValue), menuOf(podItem(one(), read('p', { host: '' }), false, false).contextValue)]).toEqual([[], []]);
    expect([menuOf('cluster'), menuOf('namespace')]).toEqual([['kube', 'kube'], []]);
  });
});

describe('a pod in the tree', () => {
  const item = (more: Record<string, unknown>, hasNodes = true): TreeItem => podItem(one(), read('web-0', more), hasNodes, false);

  it('shows what runs, or else the word of kubectl', () => {
    const since = new Date(Date.now() - 190_000).toISOString();
    expect(item({ ready: 2, total: 2, since })).toMatchObject({ label: 'web-0', description: '2/2 ready · node-01 · 3m', contextValue: 'pod.up' });
    expect(item({ ready: 1, total: 2 }, false).description).toBe('1/2 ready');
    expect(item({ status: 'CrashLoopBackOff', ready: 0, failing: true, restarts: 5, since }).description).toBe('CrashLoopBackOff · 5 restarts · node-01 · 3m');
    expect(item({ status: 'Completed', ready: 0, containers: [container('web-0', 'app', { running: false })] })).toMatchObject({ description: 'Completed · node-01', contextValue: 'pod.down' });
    expect(item({ status: 'Pending', node: '', containers: [] })).toMatchObject({ description: 'Pending', collapsibleState: 0 });
    expect([39_000, 59 * 60_000, 3_600_000, 49 * 3_600_000, -1].map((ms) => format.age(0, ms))).toEqual(['39s', '59m', '1h', '2d', '0s']);
    expect(format.age(undefined)).toBe('');
  });

  it.each([
    [{}, 'layers', 'green'], [{ ready: 0 }, 'layers', 'yellow'], [{ status: 'NotReady', ready: 0 }, 'layers', 'yellow'], [{ failing: true }, 'error', 'red'],
    [{ status: 'Pending' }, 'loading~spin', 'yellow'], [{ status: 'Init:0/2' }, 'loading~spin', 'yellow'], [{ status: 'Terminating' }, 'loading~spin', 'yellow'],
    [{ status: 'Completed' }, 'check', undefined], [{ status: 'Unknown' }, 'question', undefined], [{ status: '' }, 'question', undefined],
  ])('is drawn by its state: %j', (more, icon, color) => {
    expect(item(more).iconPath).toMatchObject({ id: icon, color: { id: color === undefined ? 'disabledForeground' : `charts.${color}` } });
  });

  it('has a tooltip with the reason, and what makes it', () => {
    expect(item({ status: 'Evicted', message: 'the node was low on memory', owner: { kind: 'Deployment', name: 'web' } }).tooltip).toBe(
      `default/web-0: Evicted\nThe node was low on memory.\n1/1 ready\nNode: node-01\nDeployment web\nssh playground-${ID}.pod.default.web-0`,
    );
  });
});

describe('a cluster', () => {
  it('is known by the names of its playground, without a question', () => {
    const looks = (name: string, ...machines: string[]): boolean => looksLikeCluster({ template: { name, title: '' }, machines: machines.map((name) => ({ name })) } as Playground);
    for (const name of ['k3s', 'k8s-omni', 'kubernetes-kubeadm', 'my-k3s-lab']) expect(looks(name)).toBe(true);
    expect(looks('custom-0a1b', 'dev-machine', 'cplane-01')).toBe(true);
    for (const name of ['docker', 'kukube', 'ubuntu-24-04']) expect(looks(name, 'docker-01', 'node-01')).toBe(false);
  });
});

/** A view on a fake binary that prints these lines of sh for `pods`, and counts its runs. */
function viewed(lines: string, lists: unknown[][] = [[k3s()]], also = '') {
  const at = folder();
  const news = lists.map((playgrounds) => `echo '${JSON.stringify({ type: 'playgrounds', playgrounds })}'; sleep 0.3`);
  const runs = `echo $$ > ${at}/pid; echo "$@" >> ${at}/runs`;
  const view = viewOn(binary(program(`[ "$1" = pods ] && { ${runs}; ${lines}; exec sleep 1000; }\n${also}\n${news.join('\n')}\nexec sleep 1000`)));
  const { tree, find, watch } = view;
  const below = (node: Node | undefined): Node[] => (node ? tree.getChildren(node) : []);
  const named = (name: string, nodes: Node[]): Node | undefined => nodes.find((node) => tree.getTreeItem(node).label === name);
  const label = (node: Node): unknown => tree.getTreeItem(node).label;
  const spaces = (): Node[] => below(find('cluster'));
  return {
    ...view, ofPods: view.pods, below, spaces,
    known: () => until(() => watch.situation.kind === 'known'),
    runs: (): string[] => (existsSync(`${at}/runs`) ? readFileSync(`${at}/runs`, 'utf8').trim().split('\n') : []),
    alive: (): boolean => existsSync(`/proc/${readFileSync(`${at}/pid`, 'utf8').trim()}`),
    labels: (): unknown[] => spaces().map(label),
    pods: (namespace = 'default'): Node[] => below(named(namespace, spaces())),
    described: (node: Node | undefined): string => (node ? `${String(label(node))} ${String(tree.getTreeItem(node).description)}` : ''),
  };
}

describe('the watch of a cluster', () => {
  it('runs while the cluster is open on the screen, and only then', async () => {
    const { known, labels, find, tree, runs, alive, fold, filter, setVisible, end } = viewed(`echo '${all(pod('web-0'), system('dns', { failing: true }))}'`);
    await known();
    const cluster = find('cluster') as Node;
    expect(tree.getChildren(tree.getChildren()[0]).map((node) => node.kind)).toEqual(['machine', 'machine', 'cluster', 'ports']);
    expect(tree.getTreeItem(cluster)).toMatchObject({ label: 'Cluster', description: '', collapsibleState: 1 });
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(runs()).toEqual([]);
    fold('cluster', false);
    expect(labels()).toEqual(['Looking for pods']);
    await until(() => labels().length === 2);
    // The one with a failing pod comes first.
    expect(labels()).toEqual(['kube-system', 'default']);
    expect(tree.getTreeItem(cluster).description).toBe('2 nodes · 2 pods · 1 failing');
    expect(runs()).toEqual([`pods ${ID} -A --watch --json`]);
    let count = 1;
    for (const [hide, show] of [
      [() => { fold('cluster', true); }, () => { fold('cluster', false); }],
      [() => { fold('playground', true); }, () => { fold('playground', false); }],
      [() => { setVisible(false); }, () => { setVisible(true); }],
      [() => { filter.set('of another'); }, () => { filter.set(''); }],
    ] as const) {
      expect(alive()).toBe(true);
      hide();
      await until(() => !alive());
      show();
      await until(() => labels().length === 2 && runs().length === count + 1);
      count += 1;
    }
    fold('cluster', true);
    // Its old state is not shown as its present one.
    expect(tree.getTreeItem(cluster).description).toBe('');
    end();
    await until(() => !alive());
    expect(runs().length).toBe(5);
  });

  it('does not begin again for a cluster that was closed with its playground', async () => {
    const { known, tree, labels, runs, alive, fold, end } = viewed(`echo '${all(pod('web-0'))}'`);
    await known();
    fold('cluster', false);
    await until(() => labels()[0] === 'default');
    const reloaded: unknown[] = [];
    tree.onDidChangeTreeData((nodes) => reloaded.push(nodes?.map((node) => node.kind)));
    fold('playground', true);
    await until(() => !alive());
    fold('playground', false);
    expect(reloaded).toEqual([['playground']]);
    await new Promise((resolve) => setTimeout(resolve, 150));
    expect(runs().length).toBe(1);
    end();
  });

  it('shows namespaces, pods and containers in their order', async () => {
    const web = pod('web-0', {
      ready: 2, total: 2,
      containers: [
        container('web-0', 'migrate', { role: 'init', state: 'terminated-ok', running: false }), container('web-0', 'log-shipper', { role: 'sidecar' }), container('web-0', 'app'),
        container('web-0', 'look', { role: 'ephemeral', target: 'app' }),
      ],
    });
    const other = { namespace: 'apps', host: '' };
    const { known, labels, pods, below, described, fold, end } = viewed(
      `echo '${all(pod('a', other), system('dns'), pod('worker-10'), pod('worker-9'), web, pod('z', { failing: true, status: 'CrashLoopBackOff' }))}'`,
    );
    await known();
    fold('cluster', false);
    await until(() => labels().length === 3);
    expect(labels()).toEqual(['default', 'apps', 'kube-system']);
    expect(pods().map(described)).toEqual(['z CrashLoopBackOff · node-01', 'web-0 2/2 ready · node-01', 'worker-9 1/1 ready · node-01', 'worker-10 1/1 ready · node-01']);
    expect(below(pods()[1]).map(described)).toEqual([
      'app ready · nginx:alpine', 'migrate init · done · nginx:alpine', 'log-shipper sidecar · ready · nginx:alpine', 'look ephemeral, debugs app · running · nginx:alpine',
    ]);
    end();
  });

  it('opens again what was open in it', async () => {
    const { known, tree, labels, pods, fold, end, ...view } = viewed(`echo '${all(pod('web-0'), pod('web-1'))}'`);
    await known();
    fold('cluster', false);
    await until(() => labels()[0] === 'default');
    const states = (): unknown[] => [...view.spaces(), ...pods()].map((node) => tree.getTreeItem(node).collapsibleState);
    expect(states()).toEqual([1, 1, 1]);
    for (const node of [view.spaces()[0], pods()[1]]) if (node?.kind === 'namespace' || node?.kind === 'pod') tree.setExpanded(node, true);
    fold('cluster', true);
    fold('cluster', false);
    await until(() => labels()[0] === 'default');
    expect(states()).toEqual([2, 1, 2]);
    end();
  });

  it('updates only what is different', async () => {
    const first = all(pod('web-0'), pod('web-1'), system('dns'));
    const fifo = folder();
    const { known, tree, labels, pods, fold, described, find, below, end } = viewed(`echo '${first}'; touch ${fifo}/news; exec tail -n +1 -f ${fifo}/news`);
    const tell = (text: string): void => { writeFileSync(`${fifo}/news`, `${text}\n`, { flag: 'a' }); };
    await known();
    fold('cluster', false);
    await until(() => labels()[0] === 'default');
    const [zero, last] = pods();
    const fired: unknown[] = [];
    // The first line has been told of by now.
    await new Promise((resolve) => setTimeout(resolve, 200));
    tree.onDidChangeTreeData((all) => fired.push(all?.map((node) => (node.kind === 'pod' ? node.pod.name : node.kind === 'namespace' ? node.namespace : node.kind))));
    tell(JSON.stringify({ pod: pod('web-0', { ready: 0 }) }));
    await until(() => fired.length === 1);
    expect(fired).toEqual([['web-0']]);
    // VS Code asks for the line of the node that it knows, and knows a node by the object.
    expect(described(zero)).toBe('web-0 0/1 ready · node-01');
    expect(pods()).toEqual([zero, last]);
    expect(pods()[0]).toBe(zero);
    // One whose namespace was never opened changes nothing that is on the screen.
    tell(JSON.stringify({ pod: system('dns', { ready: 0 }) }));
    tell(JSON.stringify({ pod: pod('web-1', { restarts: 1 }) }));
    await until(() => fired.length === 2);
    expect(fired[1]).toEqual(['web-1']);
    // A failing pod is counted, and comes first.
    tell(JSON.stringify({ pod: pod('web-1', { failing: true, status: 'Error' }) }));
    await until(() => fired.length === 3);
    expect(fired[2]).toEqual(['cluster']);
    expect(pods().map(described)).toEqual(['web-1 Error · node-01', 'web-0 0/1 ready · node-01']);
    // The same number of pods, and another one.
    tell(JSON.stringify({ gone: { namespace: 'default', name: 'web-0' } }));
    tell(JSON.stringify({ pod: pod('web-2') }));
    await until(() => fired.length === 4);
    expect(fired[3]).toEqual(['default']);
    expect(pods().map(described)).toEqual(['web-1 Error · node-01', 'web-2 1/1 ready · node-01']);
    tell(JSON.stringify({ nodes: [{ name: 'cplane-01', ready: true }, { name: 'node-01', ready: false }] }));
    await until(() => fired.length === 5);
    expect(fired[4]).toEqual(['cluster']);
    expect(tree.getTreeItem(find('cluster') as Node).description).toBe('2 nodes · node-01 not ready · 3 pods · 1 failing');
    expect(below(find('cluster')).length).toBe(2);
    // After an interruption, all of it comes again. It may be any of them that is different.
    tell(failure('the connection was lost', 'network'));
    await until(() => labels()[0] === 'The connection was lost.');
    tell(all(pod('web-1', { failing: true, status: 'Error' }), pod('web-2', { ready: 0 }), system('dns')));
    await until(() => labels()[0] === 'default');
    expect(pods().map(described)).toEqual(['web-1 Error · node-01', 'web-2 0/1 ready · node-01']);
    // That has been told of by now.
    await new Promise((resolve) => setTimeout(resolve, 200));
    const before = fired.length;
    tell(all(pod('web-1', { failing: true, status: 'Error' }), pod('web-2'), system('dns')));
    await until(() => fired.length > before);
    expect(fired.at(-1)).toEqual(['cluster']);
    expect(pods().map(described)[1]).toBe('web-2 1/1 ready · node-01');
    for (const name of ['web-1', 'web-2']) tell(JSON.stringify({ gone: { namespace: 'default', name } }));
    await until(() => String(labels()) === 'kube-system');
    tell(all());
    await until(() => String(labels()) === 'No pods');
    end();
  });

  it('is quick with a thousand pods', async () => {
    const at = folder();
    const thousand = Array.from({ length: 1000 }, (_, i) => pod(`web-${i}`));
    writeFileSync(`${at}/all`, `${all(...thousand)}\n`);
    const { known, tree, labels, pods, fold, end } = viewed(`cat ${at}/all; sleep 0.3; echo '${JSON.stringify({ pod: pod('web-500', { ready: 0 }) })}'`);
    await known();
    fold('cluster', false);
    await until(() => labels()[0] === 'default');
    const began = performance.now();
    const nodes = pods();
    for (const node of nodes) tree.getTreeItem(node);
    const drawn = performance.now() - began;
    expect(nodes.length).toBe(1000);
    const fired: Node[][] = [];
    tree.onDidChangeTreeData((all) => fired.push(all ?? []));
    await until(() => fired.some((all) => all.some((node) => node.kind === 'pod')));
    expect(fired.at(-1)?.length).toBe(1);
    expect(drawn).toBeLessThan(200);
    end();
  });

  it('keeps what was known beside a failure that may pass, and shows what to do', async () => {
    const { known, tree, find, labels, fold, spaces, runs, end } = viewed(`echo '${all(pod('web-0'))}'; sleep 0.2; echo '${failure('the connection was lost', 'network', 'wait')}'`);
    await known();
    fold('cluster', false);
    await until(() => labels()[0] === 'default');
    await until(() => labels()[0] === 'The connection was lost.');
    expect(labels()).toEqual(['The connection was lost.', 'default']);
    expect(tree.getTreeItem(spaces()[0] as Node)).toMatchObject({ description: 'wait', tooltip: 'The connection was lost. Wait.', contextValue: 'note', iconPath: { id: 'warning' } });
    expect(tree.getTreeItem(find('cluster') as Node).description).toBe('2 nodes · 1 pod · not up to date');
    expect(runs().length).toBe(1);
    expect(user.asked).toEqual([]);
    end();
  });

  it('says why there is none, and waits: for init tasks that may make it, and for Refresh', async () => {
    const none = `echo '${failure('machine cplane-01 of playground Try k3s has no kubeconfig', 'not-found')}'; exit 4`;
    const tasks = (done: number): Record<string, unknown> => k3s({ initTasks: { done, total: 2 } });
    const { known, labels, fold, runs, pods, ofPods, end } = viewed(none, [[tasks(1)], [tasks(1)], [tasks(1)], [tasks(2)]]);
    await known();
    fold('cluster', false);
    await until(() => labels()[0] === 'Machine cplane-01 of playground Try k3s has no kubeconfig.');
    expect(runs().length).toBe(1);
    await until(() => runs().length === 2);
    // The pause after a first failure is a second.
    await new Promise((resolve) => setTimeout(resolve, 1300));
    expect([runs().length, pods()]).toEqual([2, []]);
    ofPods.refresh();
    await until(() => runs().length === 3);
    end();
  });

  it('says that there are no pods, and that the program is too old', async () => {
    const empty = viewed(`echo '${all()}'`);
    await empty.known();
    empty.fold('cluster', false);
    await until(() => empty.labels()[0] === 'No pods');
    empty.end();
    const old = viewed(`echo "error: unrecognized subcommand 'pods'" >&2; exit 2`);
    await old.known();
    old.fold('cluster', false);
    await until(() => old.labels()[0] === 'The installed labctl-ssh-proxy is too old for this: it does not know `pods`.');
    old.end();
  });

  it('ends with the playground, and so does its node', async () => {
    const { known, labels, fold, find, alive, end } = viewed(`echo '${all(pod('web-0'))}'`, [[k3s()], [k3s()], [k3s()], [k3s({ state: 'STOPPED' })]]);
    await known();
    fold('cluster', false);
    await until(() => labels()[0] === 'default');
    await until(() => find('cluster') === undefined);
    await until(() => !alive());
    end();
  });

  it('shows for another playground once its user wants it, expanded', async () => {
    const { known, find, tree, end, ...view } = viewed(`echo '${all(pod('web-0'))}'`, [[listed()]]);
    await known();
    expect(find('cluster')).toBeUndefined();
    const fired: unknown[] = [];
    tree.onDidChangeTreeData((nodes) => fired.push(nodes?.map((node) => node.kind)));
    view.ofPods.want(ID);
    expect(fired).toEqual([['playground']]);
    expect(tree.getTreeItem(find('cluster') as Node)).toMatchObject({ id: `${ID}//cluster/`, collapsibleState: 2 });
    // VS Code reports no expansion of what begins expanded.
    view.labels();
    await until(() => view.labels()[0] === 'default');
    end();
  });
});

describe('the containers of pods on a machine', () => {
  const containers = (...pods: (object | null)[]): string =>
    JSON.stringify({ machine: 'docker-01', host: `playground-${ID}.docker-01`, containers: pods.map((of, i) => ({ id: `${i}`, name: `c${i}`, label: `c${i}`, host: `playground-${ID}.docker-01.c${i}`, state: 'running', pod: of })) });
  const labelsOf = ({ tree, find }: ReturnType<typeof viewed>): unknown[] => tree.getChildren(find('machine')).map((node) => tree.getTreeItem(node).label);

  it('tell that there is a cluster, and are in that', async () => {
    const lines = containers(null, { namespace: 'default', name: 'web-0' });
    const view = viewed(`echo '${failure('no kubeconfig', 'not-found')}'`, [[listed()]], `[ "$1" = containers ] && { echo '${lines}'; exec sleep 1000; }`);
    await view.known();
    expect(view.find('cluster')).toBeUndefined();
    view.fold('machine', false);
    await until(() => view.find('cluster') !== undefined);
    expect(labelsOf(view)).toEqual(['c0']);
    // It stays when the machine is closed, and a cluster that tells nothing does not hide them.
    view.fold('machine', true);
    view.fold('cluster', false);
    await until(() => view.labels()[0] === 'No kubeconfig.');
    view.fold('machine', false);
    await until(() => String(labelsOf(view)) === 'c0,c1');
    view.end();
  });

  it('leave a word if there are no others', async () => {
    const lines = containers({ namespace: 'default', name: 'web-0' });
    const view = viewed(':', [[listed()]], `[ "$1" = containers ] && { echo '${lines}'; exec sleep 1000; }`);
    await view.known();
    view.fold('machine', false);
    await until(() => view.find('cluster') !== undefined);
    expect(labelsOf(view)).toEqual(['Only containers of pods, which are in the cluster']);
    view.end();
  });
});

describe('the actions on a pod', () => {
  const playground = (): Playground => one(k3s());
  const web = (more: Record<string, unknown> = {}): Pod => read('web-0', more);
  const two = { containers: [container('web-0', 'app'), container('web-0', 'proxy', { image: 'envoy:1', role: 'sidecar' }), container('web-0', 'old', { role: 'init', running: false })] };
  const node = (more: Record<string, unknown> = {}): Node => ({ kind: 'pod', playground: playground(), pod: web(more) });
  const inner = (more: Record<string, unknown> = {}): Node => ({ kind: 'podContainer', playground: playground(), pod: web(), podContainer: readContainer(more) });
  const HOST = `playground-${ID}.pod.default.web-0`;

  it('copy its ssh command', async () => {
    const { does } = acting([k3s()]);
    await does['playgrounds.copySsh'](node());
    expect(user.clipboard).toBe(`ssh ${HOST}`);
    await does['playgrounds.copySsh'](inner());
    expect(user.clipboard).toBe(`ssh ${HOST}.app`);
    await expect(does['playgrounds.copySsh'](inner({ host: '' }))).rejects.toThrow('web-0/app has no host name');
  });

  it('open a terminal in it', async () => {
    const { does } = acting([k3s()]);
    await does['playgrounds.terminal'](node());
    await does['playgrounds.terminal'](inner());
    expect(terminals.map(({ name, shellArgs }) => [name, ...shellArgs])).toEqual([['web-0', 'ssh', HOST], ['web-0/app', 'ssh', `${HOST}.app`]]);
  });

  it('open the working folder of a container, after a word about its image', async () => {
    const { does, runs } = acting([k3s()], {}, '[ "$1" = ssh ] && { echo /srv; exit; }');
    await does['playgrounds.open'](inner());
    expect(user.asked[0]).toContain('You are asked once for the image nginx:alpine.');
    user.answers = ['Open'];
    await does['playgrounds.open'](inner());
    expect(commands.ran).toEqual([['vscode.openFolder', `vscode-remote://ssh-remote+${HOST}.app/srv`, { forceReuseWindow: true }]]);
    expect(runs().slice(0, 3)).toEqual(['config-ssh --yes --json', `start ${ID} --json`, `ssh ${HOST}.app pwd`]);
    // Of a pod, the container that runs is opened, or the one that is selected.
    await does['playgrounds.openNew'](node());
    expect(commands.ran.at(-1)).toEqual(['vscode.openFolder', `vscode-remote://ssh-remote+${HOST}.app/srv`, { forceNewWindow: true }]);
    user.answers = ['proxy', 'Open'];
    await does['playgrounds.open'](node(two));
    expect(user.asked.slice(-2)).toEqual(['Select a container of web-0 to open', expect.stringContaining('the image envoy:1.')]);
    expect(commands.ran.at(-1)?.[1]).toBe(`vscode-remote://ssh-remote+${HOST}.proxy/srv`);
    const before = commands.ran.length;
    await does['playgrounds.open'](node(two));
    expect([commands.ran.length, user.asked.at(-1)]).toEqual([before, 'Select a container of web-0 to open']);
  });

  it('forward one of its ports, or another', async () => {
    const { does, runs } = acting([k3s()]);
    user.answers = ['80'];
    // This binary forwards nothing.
    await expect(does['playgrounds.forward'](inner({ ports: [{ port: 80, protocol: 'TCP', name: 'http' }, { port: 53, protocol: 'UDP', name: '' }] }))).rejects.toThrow();
    expect(user.offered).toEqual(['80', 'Another port...']);
    expect(runs().at(-1)).toMatch(new RegExp(`^port-forward ${ID} --pod default/web-0/app -L 127\\.0\\.0\\.1:\\d+:localhost:80 --json$`));
    user.answers = ['9000'];
    await expect(does['playgrounds.forward'](node())).rejects.toThrow();
    expect(user.asked.at(-1)).toBe('Enter the port of web-0 to forward');
    expect(runs().at(-1)).toMatch(new RegExp(`^port-forward ${ID} --pod default/web-0 -L 127\\.0\\.0\\.1:\\d+:localhost:9000 --json$`));
  });

  it('show the port-forward below the machine of its node', async () => {
    const listening = '{"event":"listening","forward":0,"address":"127.0.0.1:4321"}';
    const view = viewOn(binary(program(`[ "$1" = port-forward ] && { echo '${listening}'; exec sleep 1000; }\necho '${JSON.stringify([k3s()])}'`)));
    await view.watch.fetch();
    const work = { signal: new AbortController().signal, report: () => undefined };
    await view.forwards.add(ID, 'node-01', 80, work, { host: `${HOST}.app`, label: 'web-0/app' });
    const [, second] = view.tree.getChildren(view.tree.getChildren()[0]);
    const [forward] = view.tree.getChildren(second);
    expect(forward && view.tree.getTreeItem(forward)).toMatchObject({ label: 'localhost:4321', description: 'to port 80 of web-0/app' });
    view.end();
  });

  it('follow the log of a container that runs, and show that of another', async () => {
    const { does, runs } = acting([k3s()], {}, '[ "$1" = logs ] && { echo "it hurts"; exit; }');
    await does['playgrounds.containerLog'](inner());
    expect(terminals.map(({ name, shellArgs }) => [name, ...shellArgs])).toEqual([['log web-0/app', 'logs', ID, '--pod', 'default/web-0/app', '--follow']]);
    await does['playgrounds.containerLog'](inner({ running: false }));
    expect(runs()).toEqual([`logs ${ID} --pod default/web-0/app --tail 10000`]);
    expect(window.documents).toEqual([`playgrounds://playground-${ID}/default/web-0.app.log`]);
    expect(terminals.length).toBe(1);
    user.answer = 'old';
    await does['playgrounds.containerLog'](node(two));
    expect([user.asked.at(-1), user.offered]).toEqual(['Select a container of web-0 to show the log of', ['app', 'proxy', 'old']]);
    expect(window.documents.at(-1)).toBe(`playgrounds://playground-${ID}/default/web-0.old.log`);
  });

  it('show its spec and status, each time anew, and a failure in place of a document', async () => {
    const it = folder();
    const { does, runs } = acting([k3s()], {}, `[ "$1" = pods ] && { [ -e ${it}/bad ] && { echo "labctl-ssh-proxy: it is gone" >&2; exit 4; }; echo '{}'; exit; }`);
    await does['playgrounds.spec'](inner());
    await does['playgrounds.spec'](inner());
    expect(runs()).toEqual([`pods ${ID} --of default/web-0/app`, `pods ${ID} --of default/web-0/app`]);
    expect(window.documents).toEqual([`playgrounds://playground-${ID}/default/web-0.app.json`, `playgrounds://playground-${ID}/default/web-0.app.json`]);
    writeFileSync(`${it}/bad`, '');
    await expect(does['playgrounds.spec'](inner())).rejects.toThrow('it is gone');
    expect(window.documents.length).toBe(2);
  });

  it('read no document whose address is made up', async () => {
    const at = folder();
    const documents = new Documents(binary(program(`echo "$@" >> ${at}/runs`)));
    const read = (uri: string): unknown => documents.provideTextDocumentContent(uri as unknown as Uri);
    const good = `playgrounds://playground-${ID}/default/web-0.app.json`;
    for (const uri of ['playgrounds://x/default/web-0.app.json', good.replace('app', '$(id)'), good.replace('.app', '.a.b.c'), good.replace('json', 'sh'), good.replace('playground-', 'playground--')]) {
      await expect(read(uri)).rejects.toThrow('no container has this document');
    }
    expect(existsSync(`${at}/runs`)).toBe(false);
    // An item that has been read is not read a second time, but one that is shown later is.
    const line = `pods ${ID} --of default/web-0/app\n`;
    await documents.show(`playground-${ID}.pod.default.web-0.app`, 'json', new AbortController().signal);
    await read(good);
    expect(readFileSync(`${at}/runs`, 'utf8')).toBe(line);
    await read(good);
    expect(readFileSync(`${at}/runs`, 'utf8')).toBe(line + line);
  });

  it('add an ephemeral container, of an image and perhaps a user', async () => {
    const { does } = acting([k3s()]);
    const ran = (): unknown => terminals.at(-1)?.shellArgs;
    user.answers = ['busybox:musl', ''];
    await does['playgrounds.debug'](node());
    expect(user.asked[0]).toBe('Enter the image of the container to add to web-0. The pod lists it until the pod itself is deleted.');
    expect(ran()).toEqual(['debug', ID, '--pod', 'default/web-0/app', '--ephemeral', 'busybox:musl']);
    user.answers = ['ghcr.io/a/b@sha256:0', '1000:1000'];
    await does['playgrounds.debug'](inner());
    expect(ran()).toEqual(['debug', ID, '--pod', 'default/web-0/app', '--ephemeral', 'ghcr.io/a/b@sha256:0', '--user', '1000:1000']);
    user.answers = ['proxy', 'busybox', ''];
    await does['playgrounds.debug'](node(two));
    expect(ran()).toEqual(['debug', ID, '--pod', 'default/web-0/proxy', '--ephemeral', 'busybox']);
    // Without one that runs there is nothing to look at but the pod.
    user.answers = ['busybox', ''];
    await does['playgrounds.debug'](node({ containers: [container('web-0', 'app', { running: false })] }));
    expect(ran()).toEqual(['debug', ID, '--pod', 'default/web-0', '--ephemeral', 'busybox']);
    for (const answers of [[], ['busybox']]) {
      user.answers = answers;
      await does['playgrounds.debug'](node());
    }
    expect(terminals.length).toBe(4);
    const checks = user.checks.slice(-2);
    expect(['-it', '', 'a b', '$(id)', 'busybox:musl', 'docker.io/library/busybox'].map((text) => checks[0]?.(text) === undefined)).toEqual([false, false, false, false, true, true]);
    expect(['-1', 'root', '1:', '', '1000', '1000:1000'].map((text) => checks[1]?.(text) === undefined)).toEqual([false, false, false, true, true, true]);
  });

  it('show the cluster of a playground whose names do not tell', async () => {
    const { does, pods } = acting([listed()]);
    user.answer = 'Compose trial';
    await does['playgrounds.cluster']();
    expect(user.asked).toEqual(['Select a playground to show the cluster of']);
    expect(pods.isWanted(ID)).toBe(true);
  });

  it('do nothing without a pod', async () => {
    const { does, runs } = acting([listed()]);
    for (const name of ['containerLog', 'spec', 'debug'] as const) await does[`playgrounds.${name}`](undefined);
    expect([runs(), terminals]).toEqual([[], []]);
  });
});

it('a window in a pod wakes its playground, by its id or its name', async () => {
  for (const label of [ID, 'k3s']) {
    const { binary: it, watch, runs } = acting([k3s({ state: 'STOPPED' })]);
    await prewake(it, watch, `playground-${label}.pod.default.web-0.app`);
    expect(runs()).toEqual(['list --json', 'config-ssh --yes --json', `start playground-${label} --json`]);
  }
  const { binary: it, watch, runs } = acting([k3s()]);
  await prewake(it, watch, `playground-${ID}.pod.default.web`);
  expect(runs()).toEqual(['list --json', 'config-ssh --yes --json']);
});
