// The port-forwards of this window: one `port-forward --json` process each, which ends with the window.

import { createServer } from 'node:net';
import * as vscode from 'vscode';
import { isPodHost } from './authority';
import type { Binary, Stream } from './binary';
import { Failure, cancelled } from './failure';
import { readForwardLine } from './json';
import { podOption } from './pods';
import type { Work } from './progress';

/** A port-forward of this window. */
export interface PortForward {
  playground: string;
  machine: string;
  /** The label of the container that it leads into, or its pod and its name; empty for the machine itself. */
  container: string;
  remotePort: number;
  /** The port on this computer; undefined until it listens. */
  localPort: number | undefined;
  /** The number of connections that are open now. */
  open: number;
  /** Bytes to the machine. */
  sent: number;
  /** Bytes from it. */
  received: number;
}

export class PortForwards {
  private readonly streams = new Map<PortForward, Stream>();
  /** The processes of all port-forwards so far. */
  private readonly pids = new Set<number>();
  private readonly changed = new vscode.EventEmitter<void>();
  readonly onDidChange = this.changed.event;

  /** `lost` receives the failure of a port-forward that had been listening. */
  constructor(
    private readonly binary: Binary,
    private readonly lost: (failure: Failure) => void,
  ) {}

  of(playground: string, machine: string): PortForward[] {
    return [...this.streams.keys()].filter((one) => one.playground === playground && one.machine === machine);
  }

  /** True for a process that runs, or ran, a port-forward of this window. */
  hasStarted(pid: number): boolean {
    return this.pids.has(pid);
  }

  /**
   * Forwards a port of a machine to the same local one, or to another if that is taken. Resolves when it listens. `inside`
   * names a container on the machine with this host name, or one of a pod by its own host name, whose port it is instead.
   */
  async add(
    playground: string, machine: string, remotePort: number, { signal, report }: Work, inside?: { host: string; label: string },
  ): Promise<PortForward> {
    const wanted = (await isFree(remotePort)) ? remotePort : 0;
    // A signal that is aborted already does not fire again.
    if (signal.aborted) throw cancelled();
    const forward: PortForward = { playground, machine, container: inside?.label ?? '', remotePort, localPort: undefined, open: 0, sent: 0, received: 0 };
    const where = inside ? wayInto(playground, inside) : [playground, '-m', machine];
    const args = ['port-forward', ...where, '-L', `127.0.0.1:${wanted}:localhost:${remotePort}`, '--json'];
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        signal.removeEventListener('abort', cancel);
      };
      const ended = (failure: Failure): void => {
        settle();
        const hasListened = forward.localPort !== undefined && this.streams.has(forward);
        this.remove(forward);
        if (hasListened) this.lost(failure);
        else reject(failure);
      };
      const cancel = (): void => {
        ended(cancelled());
      };
      const line = (text: string): void => {
        this.update(forward, text, report);
        if (forward.localPort === undefined) return;
        settle();
        resolve(forward);
      };
      signal.addEventListener('abort', cancel);
      const started = (pid: number): void => void this.pids.add(pid);
      this.streams.set(forward, this.binary.stream(args, { started, line, ended }));
      this.changed.fire();
    });
  }

  remove(forward: PortForward): void {
    this.streams.get(forward)?.end();
    this.streams.delete(forward);
    this.changed.fire();
  }

  dispose(): void {
    for (const stream of this.streams.values()) stream.end();
    this.streams.clear();
    this.changed.dispose();
  }

  private update(forward: PortForward, text: string, report: Work['report']): void {
    const line = readForwardLine(text);
    switch (line.event) {
      case 'listening':
        forward.localPort = line.localPort;
        this.changed.fire();
        break;
      case 'traffic':
        forward.open = line.open;
        forward.sent = line.sent;
        forward.received = line.received;
        this.changed.fire();
        break;
      case 'waiting':
      case 'problem':
        report(line.message);
        break;
      case 'other':
    }
  }
}

const wayInto = (playground: string, { host, label }: { host: string; label: string }): string[] =>
  isPodHost(host) ? [playground, '--pod', podOption(host)] : [host, '--in', label];

/** Resolves to true if this process can listen on a local port. */
function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.on('error', () => {
      resolve(false);
    });
    server.listen(port, '127.0.0.1', () => {
      server.close(() => {
        resolve(true);
      });
    });
  });
}
