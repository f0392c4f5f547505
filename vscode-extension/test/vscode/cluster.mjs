// The cluster of a playground in a real VS Code. Its API is a stand-in; its containers are real ones of containerd. The judges are
// k'exp's table of states, OpenSSH, HTTP requests, and what containerd's own client finds in the containers.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { reprContainerStatus } from '../unit/kexp.mts';
import { Containerd } from './containerd.mjs';
import { answer, button, collapse, expand, menu, pick, picture, row, rows, sees, text, widen } from './hands.mjs';
import { Kube } from './kube.mjs';
import { World, extension, showView, until } from './world.mjs';

if (!Containerd.canRun) process.exit();
let page;
let world;
const engine = new Containerd();
const kube = new Kube();

const POD = { namespace: 'default', name: 'web-7d4b9c6f5-x2x9z' };
const ids = {};

const line = (label) => page.locator(`.pane-body .monaco-list-row[aria-label^="${label},"]`);
const shows = (label, words, ms = 30_000) => sees(page, `${label}: ${words}`, async () => (await line(label).count()) === 1 && words.test((await line(label).innerText()).replaceAll('\n', ' ')), ms);
const lacks = (label) => sees(page, `no ${label}`, async () => (await line(label).count()) === 0);
const watches = () => world.processes().filter((one) => / pods .* --watch/.test(one));
const noWatch = (what) => sees(page, what, () => watches().length === 0);
const isShown = (name) => sees(page, name, async () => (await rows(page)).some((one) => one.startsWith(name)), 30_000);
const cluster = () => row(page, 'Cluster').first();
const screen = () => page.locator('.terminal-wrapper .xterm-rows').last();
const shown = async () => (await screen().innerText()).replaceAll('\u00a0', ' ').trim();
const noTerminal = async () => {
  await page.locator('.panel').getByRole('button', { name: /Kill Terminal/ }).first().click({ timeout: 2000 }).catch(() => undefined);
  await sees(page, 'no terminal', async () => (await page.locator('.terminal-wrapper').count()) === 0);
};

const running = (name, more = {}) => ({ name, containerID: `containerd://${ids[name] ?? ''}`, ready: true, started: true, restartCount: 0, state: { running: { startedAt: '2026-01-01T00:00:00Z' } }, ...more });
const waiting = (name, reason, message, restartCount = 0) => ({ name, ready: false, started: false, restartCount, state: { waiting: { reason, message } } });
const ready = (is) => [{ type: 'Ready', status: is ? 'True' : 'False' }];
const ago = (minutes) => new Date(Date.now() - minutes * 60_000).toISOString();

/** A pod with one container. */
function simple(namespace, name, image, nodeName, minutes, status = running('app')) {
  const phase = { phase: 'Running', startTime: ago(minutes), conditions: ready(status.ready), containerStatuses: [status] };
  return { metadata: { namespace, name }, spec: { nodeName, containers: [{ name: 'app', image }] }, status: phase };
}

function web() {
  return {
    metadata: { ...POD, annotations: { 'kubectl.kubernetes.io/default-container': 'app' } },
    spec: {
      nodeName: 'node-01',
      initContainers: [{ name: 'migrate', image: 'shop/web:1.4' }, { name: 'log-shipper', image: 'fluent-bit:3', restartPolicy: 'Always' }],
      containers: [{ name: 'app', image: 'shop/web:1.4', ports: [{ containerPort: 8000, protocol: 'TCP' }] }],
      ephemeralContainers: [{ name: 'look', image: 'busybox:musl', targetContainerName: 'app' }],
    },
    status: {
      phase: 'Running', startTime: ago(3), conditions: [...ready(true), { type: 'Initialized', status: 'True' }],
      initContainerStatuses: [
        { name: 'migrate', ready: true, restartCount: 0, state: { terminated: { exitCode: 0, reason: 'Completed', finishedAt: ago(3) } } }, running('log-shipper'),
      ],
      containerStatuses: [running('app')],
      ephemeralContainerStatuses: [running('look')],
    },
  };
}

function fill() {
  for (const name of ['cplane-01', 'node-01', 'node-02']) kube.put('nodes', { metadata: { name }, status: { conditions: ready(true) } });
  ids.app = engine.run('app', { pod: POD, image: 'shop/web:1.4', shell: false }, 'httpd', '-f', '-p', '8000');
  ids['log-shipper'] = engine.run('log-shipper', { pod: POD, image: 'fluent-bit:3' }, 'sleep', '1000000');
  ids.look = engine.run('look', { pod: POD, image: 'busybox:musl' }, 'sleep', '1000000');
  engine.run('registry', { image: 'registry:2' }, 'sleep', '1000000');
  kube.put('pods', web());
  kube.put('pods', simple('default', 'worker-0', 'shop/worker:1.4', 'node-02', 12, waiting('app', 'CrashLoopBackOff', 'back-off 5m0s restarting failed container', 5)));
  kube.put('pods', simple('default', 'cart-5c8f7d9b6-k4wqm', 'shop/cart:2.0', 'node-02', 47));
  kube.put('pods', simple('kube-system', 'coredns-6799fbcd5-7xkql', 'coredns:1.10', 'cplane-01', 47));
  kube.put('pods', simple('kube-system', 'metrics-server-67c658944b-p2v8n', 'metrics-server:0.6', 'cplane-01', 47));
  kube.put('pods', simple('monitoring', 'prometheus-0', 'prometheus:3', 'node-01', 30, running('app', { started: false, ready: false })));
  kube.logs.set('worker-0/app', 'connecting to queue:5672\nit hurts: connection refused\n');
  kube.logs.set(`${POD.name}/app`, 'serving at 8000\n');
}

async function live() {
  console.log('- nothing is asked while no cluster is open');
  await expand(row(page, 'Try k3s').first());
  await isShown('Cluster');
  await page.waitForTimeout(1000);
  assert.equal(world.processes().length, 1);
  assert.deepEqual(kube.seen, []);

  console.log('- a cluster: its namespaces, those with a failing pod first, and its pods');
  await expand(cluster());
  await sees(page, 'what is in it', async () => /3 nodes · 6 pods · 1 failing/.test(await cluster().innerText()), 60_000);
  const labels = async (kind) => Promise.all((await page.locator(`.pane-body .monaco-list-row[aria-label^="${kind} "]`).all()).map(async (one) => / (.*?),/.exec(await one.getAttribute('aria-label'))[1]));
  await sees(page, 'the namespaces', async () => String(await labels('Namespace')) === 'default,kube-system,monitoring');
  await expand(line('Namespace default'));
  await shows('Pod worker-0', /CrashLoopBackOff · 5 restarts · node-02 · 12m$/);
  await sees(page, 'the pods', async () => String(await labels('Pod')) === `worker-0,cart-5c8f7d9b6-k4wqm,${POD.name}`);
  await shows(`Pod ${POD.name}`, /2\/2 ready · node-01 · 3m$/);
  await expand(line(`Pod ${POD.name}`));
  const of = (name) => `Container ${name} of pod ${POD.name}`;
  await shows(of('app'), /ready · shop\/web:1\.4$/);
  await shows(of('migrate'), /init · done \(0\)/);
  await shows(of('log-shipper'), /sidecar · ready/);
  await shows(of('look'), /ephemeral, debugs app · running · busybox:musl$/);
  assert.equal(watches().length, 1);

  console.log('- a machine shows only the containers that no pod owns');
  await expand(row(page, 'cplane-01').first());
  await shows('Container registry', /running/);
  assert.equal(await page.locator('.pane-body .monaco-list-row[aria-label^="Container app,"]').count(), 0);
  await page.mouse.click(300, 560);
  await page.mouse.move(900, 560);
  await page.waitForTimeout(500);
  await picture(page, 'cluster', { x: 0, y: 0, width: 520, height: 420 });

  console.log('- the reason is in the tooltip');
  await expand(line('Pod worker-0'));
  await shows('Container app of pod worker-0', /CrashLoopBackOff · 5 restarts/);
  await line('Container app of pod worker-0').hover();
  await text(page, 'app: Waiting (CrashLoopBackOff - back-off 5m0s restarting failed container)');
  await page.mouse.move(900, 560);

  console.log('- what happens in the cluster shows while it is open');
  kube.put('pods', simple('default', 'mailer-0', 'shop/mailer:1', 'node-01', 0, waiting('app', 'ContainerCreating', '')));
  console.log(`  a new pod showed after ${await shows('Pod mailer-0', /ContainerCreating/)} ms`);
  kube.put('pods', simple('default', 'mailer-0', 'shop/mailer:1', 'node-01', 0, waiting('app', 'ImagePullBackOff', 'no such image')));
  console.log(`  its trouble showed after ${await shows('Pod mailer-0', /ImagePullBackOff/)} ms`);
  await sees(page, 'it is counted', async () => /7 pods · 2 failing/.test(await cluster().innerText()));
  kube.delete('pods', 'default', 'mailer-0');
  await lacks('Pod mailer-0');

  console.log('- a cluster that is closed, and a hidden view, cost nothing');
  await collapse(cluster());
  await noWatch('the cluster is closed');
  await sees(page, 'no watch of the API', () => kube.watches.size === 0);
  await expand(cluster());
  await shows('Pod worker-0', /CrashLoopBackOff/);
  await page.getByRole('button', { name: 'Collapse All' }).first().click();
  await noWatch('all is closed');
  await expand(row(page, 'Try k3s').first());
  await isShown('Cluster');
  await page.waitForTimeout(1000);
  assert.equal(watches().length, 0);
  await expand(cluster());
  // VS Code tells of some of the lines that it has closed with the others.
  for (const [label, below] of [['Namespace default', 'Pod worker-0'], ['Pod worker-0', 'Container app of pod worker-0'], [`Pod ${POD.name}`, `Container app of pod ${POD.name}`]]) {
    await shows(label, /./);
    await expand(line(label));
    await shows(below, /./);
  }
  await page.locator('.activitybar [aria-label*="Explorer"]').first().click();
  await sees(page, 'no process', () => world.processes().length === 0);
  await showView(page);
  await shows('Pod worker-0', /CrashLoopBackOff/, 60_000);
}

async function many() {
  console.log('- a thousand pods: only what is different is updated');
  const pod = (i, status) => simple('load', `load-${i}`, 'app:1', 'node-01', 90, status);
  for (let i = 0; i < 1000; i += 1) kube.put('pods', pod(i));
  await sees(page, 'they are counted', async () => /1006 pods/.test(await cluster().innerText()), 30_000);
  await collapse(line('Namespace default'));
  await expand(line('Namespace load'));
  console.log(`  they showed after ${await shows('Pod load-0', /1\/1 ready/)} ms`);
  kube.put('pods', pod(1, running('app', { ready: false })));
  console.log(`  a change showed after ${await shows('Pod load-1', /0\/1 ready/, 2000)} ms`);
  kube.put('pods', pod(999, waiting('app', 'ImagePullBackOff', 'no such image')));
  console.log(`  trouble came first after ${await shows('Pod load-999', /ImagePullBackOff/, 3000)} ms`);
  for (let i = 0; i < 1000; i += 1) kube.delete('pods', 'load', `load-${i}`);
  await lacks('Namespace load');
  await expand(line('Namespace default'));
  await shows('Pod worker-0', /CrashLoopBackOff/);
}

async function table() {
  console.log("- the states are k'exp's");
  const seen = [
    { state: { waiting: { reason: 'ContainerCreating' } } }, { state: { waiting: { reason: 'CrashLoopBackOff', message: 'back-off' } } }, { state: { waiting: {} } },
    { state: { running: {} }, started: false, ready: false }, { state: { running: {} }, started: true, ready: false }, { state: { running: {} }, started: true, ready: true },
    { state: { terminated: { exitCode: 0, reason: 'Completed' } } }, { state: { terminated: { exitCode: 137, reason: 'OOMKilled', message: 'too much' } } }, { state: { terminated: { exitCode: 1 } } }, { state: {} },
  ];
  const fields = { init: ['initContainers', 'initContainerStatuses'], sidecar: ['initContainers', 'initContainerStatuses'], regular: ['containers', 'containerStatuses'], ephemeral: ['ephemeralContainers', 'ephemeralContainerStatuses'] };
  const pods = Object.entries(fields).map(([kind, [wanted, statuses]]) => {
    const all = [...seen.keys(), 'unseen'].map((i) => ({ name: `c-${i}`, image: 'app:1', ...(kind === 'sidecar' ? { restartPolicy: 'Always' } : {}) }));
    return {
      metadata: { namespace: 'table', name: kind }, spec: { nodeName: 'node-01', containers: [], [wanted]: all },
      status: { phase: 'Running', [statuses]: seen.map((one, i) => ({ name: `c-${i}`, restartCount: 0, ready: false, ...one })) },
    };
  });
  for (const pod of pods) kube.put('pods', pod);
  const listed = JSON.parse(await world.run('pods', (await world.list())[0].id, '-n', 'table', '--json')).pods;
  for (const pod of pods) {
    const kind = pod.metadata.name;
    const { containers } = listed.find((one) => one.name === kind);
    assert.equal(containers.length, seen.length + 1);
    for (const { name, state, title, reason, message } of containers) {
      const { status, title: words, reason: why = '', message: more = '' } = reprContainerStatus(pod, name, { kind });
      assert.deepEqual([name, state, title, reason, message], [name, status, words, why, more]);
    }
  }
  for (const pod of pods) kube.delete('pods', 'table', pod.metadata.name);
}

async function use() {
  const host = `playground-${(await world.list())[0].id}.pod.default.${POD.name}`;
  const app = () => line(`Container app of pod ${POD.name}`).first();
  const shipper = () => line(`Container log-shipper of pod ${POD.name}`).first();

  console.log('- a terminal is inside');
  await button(shipper(), 'Open Terminal');
  await sees(page, 'a prompt', async () => /[$#]$/.test(await shown()), 60_000);
  await page.locator('.terminal-wrapper .xterm-screen').last().click();
  await page.keyboard.type('pwd > told; exit\n');
  const told = () => {
    try {
      return engine.exec(ids['log-shipper'], 'cat', '/srv/told');
    } catch {
      return '';
    }
  };
  await sees(page, 'what the shell had', () => told() === '/srv');
  await noTerminal();

  console.log('- a terminal in a container without a shell has one that is lent, and its files');
  await button(app(), 'Open Terminal');
  await sees(page, 'a prompt', async () => /[$#]$/.test(await shown()), 60_000);
  await page.locator('.terminal-wrapper .xterm-screen').last().click();
  await page.keyboard.type('ls /bin; cat index.html\n');
  await sees(page, 'what is there', async () => /httpd\s+hello from shop\/web:1\.4/.test(await shown()));
  await page.mouse.move(900, 300);
  await page.waitForTimeout(500);
  // It is in the repository's docs, and not in the package.
  await picture(page, 'vscode-cluster', undefined, process.env.PICTURES && path.join(extension, '../docs/images'));
  await page.keyboard.type('exit\n');
  await noTerminal();

  console.log('- the ssh command, by OpenSSH: into a container without a shell');
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
  await menu(page, app(), 'Copy SSH Command');
  await text(page, 'SSH command copied to the clipboard');
  const command = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(command, `ssh ${host}.app`);
  const { stdout } = await promisify(execFile)('ssh', ['-F', path.join(world.home, '.ssh/config'), ...command.split(' ').slice(1), 'cat index.html'], { env: world.env });
  assert.equal(stdout, 'hello from shop/web:1.4\n');

  console.log('- a port, in the browser');
  const opened = page.context().waitForEvent('page', { timeout: 60_000 });
  await menu(page, app(), 'Forward a Port...');
  await pick(page, '8000');
  const tab = await opened;
  await tab.waitForLoadState();
  assert.equal((await tab.locator('body').innerText()).trim(), 'hello from shop/web:1.4');
  await tab.close();
  await row(page, 'node-01').first().scrollIntoViewIfNeeded();
  await sees(page, 'its line below the machine of the node', async () => (await rows(page)).some((one) => /localhost:\d+.*port 8000 of .*\/app/.test(one.replaceAll('\n', ''))));
  await button(row(page, 'localhost').first(), 'Stop Forwarding Port');
  await sees(page, 'it goes', () => !world.processes().some((one) => one.includes('port-forward')));

  console.log('- the log of a container that runs, in a terminal that follows it');
  await button(app(), 'Show Container Log');
  await sees(page, 'its first line', async () => (await shown()).includes('serving at 8000'), 30_000);
  await sees(page, 'it goes on', () => world.processes().some((one) => one.includes(` --pod default/${POD.name}/app --follow`)));
  await noTerminal();
  await sees(page, 'its end', () => !world.processes().some((one) => one.includes('--follow')));

  console.log('- the log of one that does not run, and what the API has about it, in documents');
  const editor = async () => (await page.locator('.monaco-editor .view-lines').last().innerText({ timeout: 2000 }).catch(() => '')).replaceAll('\u00a0', ' ');
  await menu(page, line('Container app of pod worker-0').first(), 'Show Container Log');
  await sees(page, 'its last words', async () => (await editor()).includes('it hurts: connection refused'), 30_000);
  await menu(page, line('Container app of pod worker-0').first(), 'Show Spec and Status');
  await sees(page, 'the document', async () => /"image": "shop\/worker:1\.4"[^]*"reason": "CrashLoopBackOff"/.test(await editor()), 30_000);
  await page.locator('.tab', { hasText: 'worker-0.app.json' }).waitFor();
  assert.equal(await page.locator('.tab').count(), 1, 'a preview takes the place of another');

  console.log('- an ephemeral container: of an image and a user, in the pod and in the tree');
  const ask = async (asked, entered) => {
    await sees(page, asked, async () => (await page.locator('.quick-input-widget').innerText()).includes(asked));
    await page.locator('.quick-input-widget input[type=text]').first().fill(entered);
    await page.keyboard.press('Enter');
  };
  await menu(page, app(), 'Add Ephemeral Container...');
  await ask('Enter the image of the container', 'alpine:3.22');
  await ask('Enter the id of the user', '1000');
  const added = () => kube.find('pods', POD.namespace, POD.name).spec.ephemeralContainers.find((one) => one.image === 'alpine:3.22');
  await sees(page, 'it is in the pod', () => added() !== undefined, 30_000);
  assert.deepEqual([added().targetContainerName, added().securityContext?.runAsUser], ['app', 1000]);
  await shows(`Container ${added().name} of pod ${POD.name}`, /ephemeral, debugs app · .* · alpine:3\.22$/);
  await noTerminal();

  console.log('- open: a word about trust, once for each image, and the folder of the container');
  for (const reply of ['Cancel', 'Open']) {
    await menu(page, app(), 'Open in This Window');
    await text(page, 'You are asked once for the image shop/web:1.4');
    await answer(page, reply);
    await sees(page, 'no question', async () => (await page.locator('.monaco-dialog-box').count()) === 0);
  }
  await sees(page, 'the address', () => new URL(page.url()).searchParams.get('folder') === '/srv', 60_000);
}

try {
  await Promise.all([engine.start(), kube.start()]);
  fill();
  world = new World(['--boot-delay', '1s', '--engine', engine.folder]);
  const custom = path.join(world.home, '.iximiuz/labctl-ssh-proxy/local/playgrounds');
  mkdirSync(custom, { recursive: true, mode: 0o700 });
  const machines = ['cplane-01', 'node-01', 'node-02'].map((name) => ({ name }));
  writeFileSync(path.join(custom, 'k3s.json'), JSON.stringify({ base: 'duo', title: 'K3s', machines }), { mode: 0o600 });
  await world.start();
  page = await world.window({ height: 760 });
  page.setDefaultTimeout(15_000);
  await showView(page);
  await widen(page);
  await world.run('config-ssh', '--yes');
  const { id } = JSON.parse(await world.run('start', 'k3s', '--json', '--title', 'Try k3s'));
  const home = path.join(world.home, '.iximiuz/labctl-ssh-proxy/local/plays', id, 'cplane-01/home/.kube');
  mkdirSync(home, { recursive: true });
  writeFileSync(path.join(home, 'config'), kube.kubeconfig);
  await sees(page, 'it runs', async () => (await rows(page)).some((one) => /^Try k3s[^]*running/.test(one)), 30_000);
  await live();
  await many();
  await table();
  await use();
  await page.close();
  await until('no process', () => world.processes().length === 0, 20_000);
} catch (error) {
  console.error(error, page?.messages.slice(-20));
  if (page && !page.isClosed()) await page.screenshot({ path: path.join(extension, 'dist/failed.png') });
  process.exitCode = 1;
} finally {
  await world?.end();
  kube.end();
  await engine.end();
}
process.exit();
