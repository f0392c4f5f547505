// Inside a playground's window: its state, a warning before its end, and the choices after it.

import * as vscode from 'vscode';
import { guarded } from './actions';
import { named } from './authority';
import { type Command, KEEP } from './commands';
import type { Disposable, Watch } from './watch';
import { type Connection, type Playground, condition } from './wire';
import * as words from './words';

const MINUTE = 60_000;
/** The time left is shown in minutes. */
const TICK_MS = 30_000;

/** The text and tooltip of the item. */
export interface Shown {
  text: string;
  tooltip: string;
}

/** Bytes per second each way, from two looks at the connections. */
export class Throughput {
  private before: { at: number; sent: number; received: number } | undefined;
  private last = { sent: 0, received: 0 };

  /** Measures the rates. A connection that opens or closes is not traffic. */
  measure(connections: Connection[], now = Date.now()): { sent: number; received: number } {
    const sent = connections.reduce((sum, one) => sum + one.sent, 0);
    const received = connections.reduce((sum, one) => sum + one.received, 0);
    const { before } = this;
    if (before && now - before.at < 1000) return this.last;
    const seconds = before ? (now - before.at) / 1000 : 1;
    const rate = (bytes: number, then: number | undefined): number => Math.max(0, bytes - (then ?? bytes)) / seconds;
    this.last = { sent: rate(sent, before?.sent), received: rate(received, before?.received) };
    this.before = { at: now, sent, received };
    return this.last;
  }
}

/** Renders a playground. */
export function shown(playground: Playground, rates: { sent: number; received: number }, now = Date.now()): Shown {
  const title = words.title(playground);
  const up = condition(playground) === 'up';
  const trips = playground.connections.map((one) => one.roundTripMs).filter((ms) => ms !== undefined);
  const left = words.timeLeft(playground.endsAt, now);
  const text = [`$(${up ? 'vm-running' : 'vm-outline'}) ${title}`];
  if (!up) text.push(words.state(playground));
  if (up && trips.length > 0) text.push(words.roundTrip(Math.min(...trips)));
  if (up && rates.sent + rates.received >= 1) {
    text.push(`↓ ${words.size(rates.received)}/s ↑ ${words.size(rates.sent)}/s`);
  }
  if (left && (up || condition(playground) === 'starting')) text.push(left);
  const connections = `${playground.connections.length} connection${playground.connections.length === 1 ? '' : 's'}`;
  const tooltip = [`${title} (${playground.template.name}), ${words.state(playground)}`, connections];
  const end = words.end(playground, now);
  if (end) tooltip.push(`${end}: click to extend it${playground.persistent ? '' : `, or run "Playgrounds: ${KEEP}"`}`);
  return { text: text.join(' · '), tooltip: tooltip.join('\n') };
}

/** A button of a warning and its command. */
interface Choice {
  button: string;
  command: Command;
  /** The window has to connect anew afterwards. */
  reload?: boolean;
}

/** The fate of a playground that ran and is gone, as a predicate. */
function farewell(ran: Playground, now: Playground | undefined): string {
  if (now?.state === 'FAILED') return 'has failed';
  // The end may come a little before it was expected.
  const isTimeUp = ran.endsAt !== undefined && ran.endsAt <= Date.now() + MINUTE;
  if (isTimeUp && ran.persistent !== true) return 'was erased: its time was up';
  return 'is gone: it was destroyed';
}

export class StatusBar implements Disposable {
  private readonly item = vscode.window.createStatusBarItem('playgrounds.status', vscode.StatusBarAlignment.Left, 90);
  private readonly throughput = new Throughput();
  private readonly subscriptions: Disposable[];
  private readonly clock: NodeJS.Timeout;
  private warnedOf = 0;
  /** The playground as it was when it last ran in this window. One that never ran here is not said to have ended. */
  private ran: Playground | undefined;

  constructor(
    private readonly host: string,
    private readonly watch: Watch,
    private readonly act: (command: Command, id: string) => Promise<void>,
  ) {
    this.item.name = 'Playground';
    this.item.command = { title: 'Extend', command: 'playgrounds.extend', arguments: [] };
    this.subscriptions = [
      this.item,
      watch.hold(true),
      watch.onDidChange(() => {
        this.show();
      }),
    ];
    this.clock = setInterval(() => {
      this.show();
    }, TICK_MS);
    this.show();
  }

  dispose(): void {
    clearInterval(this.clock);
    for (const subscription of this.subscriptions) subscription.dispose();
  }

  private show(): void {
    if (this.watch.situation.kind === 'loading') return;
    const playground = named(this.host, this.watch.playgrounds);
    if (this.watch.situation.kind === 'known') this.lookForTheEnd(playground);
    if (!playground) {
      this.item.hide();
      return;
    }
    const { text, tooltip } = shown(playground, this.throughput.measure(playground.connections));
    this.item.text = text;
    this.item.tooltip = tooltip;
    this.item.command = { title: 'Extend', command: 'playgrounds.extend', arguments: [playground.id] };
    this.item.show();
    this.warn(playground);
  }

  private warn(playground: Playground): void {
    const minutes = vscode.workspace.getConfiguration('playgrounds').get<number>('warnBeforeEnd') ?? 10;
    const { endsAt } = playground;
    if (endsAt === undefined || condition(playground) !== 'up' || endsAt - Date.now() > minutes * MINUTE) return;
    // Once per end; an end that moves by seconds is the same one.
    if (Math.abs(endsAt - this.warnedOf) < MINUTE || endsAt <= Date.now()) return;
    this.warnedOf = endsAt;
    this.item.backgroundColor = new vscode.ThemeColor('statusBarItem.warningBackground');
    const advice = playground.persistent ? 'Extend it for more time.' : 'Extend it for more time, or keep it: then it only stops.';
    const choices: Choice[] = [{ button: 'Extend', command: 'playgrounds.extend' }];
    if (!playground.persistent) choices.push({ button: 'Keep', command: 'playgrounds.persist' });
    this.ask(`${words.title(playground)} ${words.end(playground)}. ${advice}`, choices, playground.id);
  }

  private lookForTheEnd(playground: Playground | undefined): void {
    const now = playground ? condition(playground) : 'gone';
    if (playground && now === 'up') {
      if (!this.ran || (playground.endsAt ?? Infinity) > this.warnedOf + MINUTE) this.item.backgroundColor = undefined;
      this.ran = playground;
    }
    if ((now !== 'down' && now !== 'gone') || !this.ran) return;
    const { ran } = this;
    const title = words.title(ran);
    this.ran = undefined;
    this.item.backgroundColor = new vscode.ThemeColor('statusBarItem.errorBackground');
    if (now === 'down') {
      const restart: Choice = { button: 'Restart', command: 'playgrounds.wake', reload: true };
      this.ask(`${title} has stopped. Its disks are kept.`, [restart], ran.id);
    } else {
      void vscode.window.showWarningMessage(`${title} ${farewell(ran, playground)}.`);
    }
  }

  private ask(message: string, choices: Choice[], id: string): void {
    guarded(async () => {
      const answer = await vscode.window.showWarningMessage(message, ...choices.map((one) => one.button));
      const choice = choices.find((one) => one.button === answer);
      if (!choice) return;
      await this.act(choice.command, id);
      // The server that the window was connected to has gone with the machine.
      if (choice.reload) await vscode.commands.executeCommand('workbench.action.reloadWindow');
    });
  }
}
