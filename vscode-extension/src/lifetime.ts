// The end of a window's playground: the warning before it and the message after it.

import { type Command, MAKE_PERSISTENT } from './commands';
import * as format from './format';
import { type Playground, condition } from './playground';

const MINUTE = 60_000;

/** A button and the command that it runs. */
export interface Choice {
  button: string;
  command: Command;
  /** True if the window has to be reloaded afterwards, so that it connects again. */
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
  /** The playground as it was when it last ran; undefined if this window has not seen it run, or has reported its end. */
  private running: Playground | undefined;
  /** The urgency, which the status bar shows as a background color. */
  urgency: 'none' | 'warning' | 'error' = 'none';

  /** Returns a notice once the playground has ended. `playground` is undefined if the platform no longer lists it. */
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

  /** Returns a notice when the end is at most `minutes` away, once for each end. An end that moves by seconds is the same one. */
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
  const advice = persistent ? 'Extend it for more time.' : 'Extend it for more time, or make it persistent to keep it.';
  const choices: Choice[] = [{ button: 'Extend', command: 'playgrounds.extend' }];
  if (!persistent) choices.push({ button: MAKE_PERSISTENT, command: 'playgrounds.persist' });
  return { id, message: `${format.title(playground)} ${format.end(playground)}. ${advice}`, choices };
}

function stopped(ran: Playground): Notice {
  const start: Choice = { button: 'Start and Reload Window', command: 'playgrounds.wake', reload: true };
  return { id: ran.id, message: `${format.title(ran)} has stopped. Its disks are kept.`, choices: [start] };
}

function gone(ran: Playground, now: Playground | undefined): Notice {
  return { id: ran.id, message: `${format.title(ran)} ${fate(ran, now)}.`, choices: [] };
}

/** The fate of a playground that ran and is gone, as the predicate of a sentence. */
function fate(ran: Playground, now: Playground | undefined): string {
  if (now?.state === 'FAILED') return 'has failed';
  // The platform may erase it a little early.
  const isTimeUp = ran.endsAt !== undefined && ran.endsAt <= Date.now() + MINUTE;
  if (isTimeUp && ran.persistent !== true) return 'was erased because its time was up';
  return 'was destroyed';
}
