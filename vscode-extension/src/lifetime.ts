// The end of the playground of a window: a warning before it, and a message after it with the choices that are left.

import type { Command } from './commands';
import * as format from './format';
import { type Playground, condition } from './playground';

const MINUTE = 60_000;

/** A button and the command that it runs. */
export interface Choice {
  button: string;
  command: Command;
  /** The window has to connect again afterwards. */
  reload?: boolean;
}

/** A message about a playground, with choices. */
export interface Notice {
  id: string;
  message: string;
  choices: Choice[];
}

export class Lifetime {
  /** The end that the user has been warned of. */
  private warnedOf = 0;
  /** The playground as it was when it last ran in this window. One that never ran here is not said to have ended. */
  private running: Playground | undefined;
  /** The urgency, which the status bar shows as a color. */
  urgency: 'none' | 'warning' | 'error' = 'none';

  /** Looks whether the playground has ended. `playground` is undefined if the platform does not list it any more. */
  checkEnd(playground: Playground | undefined): Notice | undefined {
    const now = playground ? condition(playground) : 'gone';
    if (playground && now === 'up') {
      const isExtended = (playground.endsAt ?? Infinity) > this.warnedOf + MINUTE;
      if (!this.running || isExtended) this.urgency = 'none';
      this.running = playground;
    }
    const { running } = this;
    if (!running || (now !== 'down' && now !== 'gone')) return undefined;
    this.running = undefined;
    this.urgency = 'error';
    return now === 'down' ? stopped(running) : gone(running, playground);
  }

  /** Looks whether the end is at most `minutes` away. Warns once of each end; one that moves by seconds is the same. */
  checkTimeLeft(playground: Playground, minutes: number): Notice | undefined {
    const { endsAt } = playground;
    if (endsAt === undefined || condition(playground) !== 'up') return undefined;
    const left = endsAt - Date.now();
    if (left <= 0 || left > minutes * MINUTE || Math.abs(endsAt - this.warnedOf) < MINUTE) return undefined;
    this.warnedOf = endsAt;
    this.urgency = 'warning';
    return soonOver(playground);
  }
}

function soonOver(playground: Playground): Notice {
  const { id, persistent } = playground;
  const advice = persistent ? 'Extend it for more time.' : 'Extend it for more time, or keep it: then it only stops.';
  const choices: Choice[] = [{ button: 'Extend', command: 'playgrounds.extend' }];
  if (!persistent) choices.push({ button: 'Keep', command: 'playgrounds.persist' });
  return { id, message: `${format.title(playground)} ${format.end(playground)}. ${advice}`, choices };
}

function stopped(ran: Playground): Notice {
  const restart: Choice = { button: 'Restart', command: 'playgrounds.wake', reload: true };
  return { id: ran.id, message: `${format.title(ran)} has stopped. Its disks are kept.`, choices: [restart] };
}

function gone(ran: Playground, now: Playground | undefined): Notice {
  return { id: ran.id, message: `${format.title(ran)} ${fate(ran, now)}.`, choices: [] };
}

/** The fate of a playground that ran and is gone, as a predicate. */
function fate(ran: Playground, now: Playground | undefined): string {
  if (now?.state === 'FAILED') return 'has failed';
  // The end may come a little before it was expected.
  const isTimeUp = ran.endsAt !== undefined && ran.endsAt <= Date.now() + MINUTE;
  if (isTimeUp && ran.persistent !== true) return 'was erased: its time was up';
  return 'is gone: it was destroyed';
}
