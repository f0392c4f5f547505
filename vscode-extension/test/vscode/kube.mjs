// A stand-in for the API of a Kubernetes cluster, as tests/it/support/cluster.rs has it: lists, watches, logs, and the patch that
// adds an ephemeral container. Its objects are what the tests put into it.
import { createServer } from 'node:http';

const TOKEN = 'the-token-of-the-cluster';

export class Kube {
  objects = new Map();
  events = [];
  /** The requests, each as "method path". */
  seen = [];
  watches = new Set();
  /** The log of each container, by "pod/container". */
  logs = new Map();

  async start() {
    this.server = createServer((request, answer) => void this.answer(request, answer));
    await new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve));
  }

  end() {
    this.server.close();
    this.server.closeAllConnections();
  }

  /** The kubeconfig of a machine that is this computer. */
  get kubeconfig() {
    const { port } = this.server.address();
    return JSON.stringify({
      'apiVersion': 'v1', 'kind': 'Config', 'current-context': 'x',
      'clusters': [{ name: 'c', cluster: { server: `http://127.0.0.1:${port}` } }],
      'users': [{ name: 'u', user: { token: TOKEN } }],
      'contexts': [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    });
  }

  find(kind, namespace, name) {
    return this.objects.get(`${kind}/${namespace}/${name}`);
  }

  /** Puts an object in, or a new version of it. */
  put(kind, object) {
    const { namespace = '', name } = object.metadata;
    this.happen(this.find(kind, namespace, name) ? 'MODIFIED' : 'ADDED', kind, object);
    this.objects.set(`${kind}/${namespace}/${name}`, object);
  }

  delete(kind, namespace, name) {
    this.happen('DELETED', kind, this.find(kind, namespace, name));
    this.objects.delete(`${kind}/${namespace}/${name}`);
  }

  happen(type, kind, object) {
    object.metadata.resourceVersion = String(this.events.length + 1);
    this.events.push({ kind, line: `${JSON.stringify({ type, object })}\n` });
    for (const watch of this.watches) if (watch.kind === kind) watch.answer.write(this.events.at(-1).line);
  }

  async answer(request, answer) {
    const { pathname, searchParams } = new URL(request.url, 'http://api');
    this.seen.push(`${request.method} ${pathname}`);
    const say = (code, value) => answer.writeHead(code, { 'content-type': 'application/json' }).end(JSON.stringify(value));
    const refuse = (code, reason, message) => say(code, { kind: 'Status', apiVersion: 'v1', status: 'Failure', code, reason, message });
    if (request.headers.authorization !== `Bearer ${TOKEN}`) return refuse(401, 'Unauthorized', 'Unauthorized');
    const [, namespace = '', kind, name, part] = /^\/api(?:s\/apps)?\/v1\/(?:namespaces\/([^/]+)\/)?([^/]+)(?:\/([^/]+))?(?:\/([^/]+))?$/.exec(pathname) ?? [];
    if (name === undefined) return searchParams.has('watch') ? this.watch(kind, searchParams, answer) : say(200, this.list(kind, namespace));
    const found = this.find(kind, namespace, name);
    if (!found) return refuse(404, 'NotFound', `${kind} "${name}" not found`);
    if (part === undefined) return say(200, found);
    if (part === 'log') return this.log(`${name}/${searchParams.get('container')}`, searchParams, answer);
    if (part !== 'ephemeralcontainers' || request.method !== 'PATCH') return refuse(404, 'NotFound', 'the server could not find the requested resource');
    let body = '';
    for await (const chunk of request) body += chunk;
    const added = JSON.parse(body).spec.ephemeralContainers;
    const changed = structuredClone(found);
    changed.spec.ephemeralContainers = [...(found.spec.ephemeralContainers ?? []).filter((one) => added.every((other) => other.name !== one.name)), ...added];
    this.put(kind, changed);
    return say(200, changed);
  }

  log(of, searchParams, answer) {
    answer.writeHead(200, { 'content-type': 'text/plain' }).write(this.logs.get(of) ?? '');
    if (searchParams.get('follow') !== 'true') answer.end();
  }

  list(kind, namespace) {
    const items = [...this.objects].filter(([key]) => key.startsWith(`${kind}/${namespace}`)).map(([, object]) => object);
    return { kind: 'List', metadata: { resourceVersion: String(this.events.length) }, items };
  }

  watch(kind, searchParams, answer) {
    answer.writeHead(200, { 'content-type': 'application/json' });
    answer.flushHeaders();
    for (const event of this.events.slice(Number(searchParams.get('resourceVersion')))) if (event.kind === kind) answer.write(event.line);
    const watch = { kind, answer };
    this.watches.add(watch);
    answer.on('close', () => this.watches.delete(watch));
  }
}
