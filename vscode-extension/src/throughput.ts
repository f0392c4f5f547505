// The throughput of connections, calculated from their byte counts.

import type { Connection } from './playground';

/** The throughput in bytes per second. */
export interface Rates {
  sent: number;
  received: number;
}

/** The shortest time between two measurements. */
const INTERVAL_MS = 1000;

export class Throughput {
  private before: { at: number; sent: number; received: number } | undefined;
  private rates: Rates = { sent: 0, received: 0 };

  /** Calculates the rates since the last call. The first call and a closed connection count as no traffic. */
  measure(connections: Connection[], now = Date.now()): Rates {
    const { before } = this;
    if (before && now - before.at < INTERVAL_MS) return this.rates;
    const sent = connections.reduce((sum, one) => sum + one.sent, 0);
    const received = connections.reduce((sum, one) => sum + one.received, 0);
    const seconds = before ? (now - before.at) / 1000 : 1;
    const rate = (bytes: number, then = bytes): number => Math.max(0, bytes - then) / seconds;
    this.rates = { sent: rate(sent, before?.sent), received: rate(received, before?.received) };
    this.before = { at: now, sent, received };
    return this.rates;
  }
}
