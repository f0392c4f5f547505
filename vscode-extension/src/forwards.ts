// The ports that this window forwards: one `port-forward --json` process each, ended with it.

import { createServer } from 'node:net';
import * as vscode from 'vscode';
import { type Binary, Failure, type Stream } from './binary';
import type { Work } from './work';

/** A forward of this window. */
export interface Forward {
  playground: string;
  machine: string;
  remotePort: number;
  /** Where it listens, once it does. */
  localPort: number | undefined;
  /** Connections that are open now. */
  open: number;
  /** Bytes to the machine. */
  sent: number;
  /** Bytes from it. */
  received: number;
}

/** What a line of `port-forward --json` tells of its only forward. */
export type News =
  | { event: 'listening'; localPort: number }
  | { event: 'traffic'; open: number; sent: number; received: number }
  | { event: 'waiting' | 'problem'; message: string }
  | { event: 'other' };

/** Reads a line of `port-forward --json`; what is not understood is of no interest. */
export function news(line: string): News {
  let said: Record<string, unknown>;
  try {
    said = JSON.parse(line) as Record<string, unknown>;
  } catch {
    return { event: 'other' };
  }
  const text = (key: string): string => (typeof said[key] === 'string' ? said[key] : '');
  const number = (key: string): number => (typeof said[key] === 'number' ? said[key] : 0);
  switch (said['event']) {
    case 'listening':
      return { event: 'listening', localPort: Number(/:(\d+)$/.exec(text('address'))?.[1] ?? 0) };
    case 'traffic':
      return { event: 'traffic', open: number('open'), sent: number('sent'), received: number('received') };
    case 'waiting':
    case 'problem':
      return { event: said['event'], message: text('message') };
    default:
      return { event: 'other' };
  }
}

export class Forwards {
  private readonly streams = new Map<Forward, Stream>();
  private readonly changed = new vscode.EventEmitter<void>();
  readonly onDidChange = this.changed.event;

  /** `lost` is told of one that ends by itself after it has listened. */
  constructor(
    private readonly binary: Binary,
    private readonly lost: (failure: Failure) => void,
  ) {}

  of(playground: string, machine: string): Forward[] {
    return [...this.streams.keys()].filter((one) => one.playground === playground && one.machine === machine);
  }

  /** Forwards a port of a machine to the same local one, or to another when that is taken; until it listens. */
  async add(playground: string, machine: string, remotePort: number, { signal, say }: Work): Promise<Forward> {
    const local = (await isFree(remotePort)) ? remotePort : 0;
    // A signal that has come already is not told again.
    if (signal.aborted) throw new Failure('cancelled', 'cancelled');
    const forward: Forward = { playground, machine, remotePort, localPort: undefined, open: 0, sent: 0, received: 0 };
    const spec = `127.0.0.1:${local}:localhost:${remotePort}`;
    const args = ['port-forward', playground, '-m', machine, '-L', spec, '--json'];
    return new Promise((resolve, reject) => {
      const fail = (error: unknown): void => {
        signal.removeEventListener('abort', cancel);
        const hadBegun = forward.localPort !== undefined && this.streams.has(forward);
        this.remove(forward);
        // Whoever asked for it has had an answer already.
        if (hadBegun) this.lost(Failure.from(error));
        else reject(Failure.from(error));
      };
      const cancel = (): void => {
        fail(new Failure('cancelled', 'cancelled'));
      };
      signal.addEventListener('abort', cancel);
      const line = (text: string): void => {
        const told = news(text);
        switch (told.event) {
          case 'listening':
            forward.localPort = told.localPort;
            signal.removeEventListener('abort', cancel);
            resolve(forward);
            break;
          case 'traffic':
            Object.assign(forward, told);
            break;
          case 'waiting':
          case 'problem':
            say(told.message);
            return;
          case 'other':
            return;
        }
        this.changed.fire();
      };
      this.streams.set(forward, this.binary.stream(args, { line, ended: fail }));
      this.changed.fire();
    });
  }

  remove(forward: Forward): void {
    this.streams.get(forward)?.end();
    this.streams.delete(forward);
    this.changed.fire();
  }

  dispose(): void {
    for (const stream of this.streams.values()) stream.end();
    this.streams.clear();
    this.changed.dispose();
  }
}

/** Whether nothing listens on a local port, and we may. */
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
