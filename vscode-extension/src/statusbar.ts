// The status bar item of a playground's window: state, throughput, time left, and the latency where that is long. It also
// announces the end.

import * as vscode from 'vscode';
import { findByHost } from './authority';
import { type Command, MAKE_PERSISTENT } from './commands';
import * as format from './format';
import { Lifetime, type Notice } from './lifetime';
import { showingFailure } from './messages';
import { type Playground, condition, latency } from './playground';
import { type Rates, Throughput } from './throughput';
import type { Disposable, Watch } from './watch';

/** The interval at which the time left, shown in minutes, is brought up to date. */
const TICK_MS = 30_000;

/** Tells a slow connection. One that has become slow stays so until it is clearly faster, so that the text does not flicker. */
export class Slowness {
  private isSlow = false;

  /** @param threshold in ms; 0 for never. */
  check(latencyMs: number | undefined, threshold: number): boolean {
    const least = this.isSlow ? threshold * 0.8 : threshold;
    this.isSlow = threshold > 0 && latencyMs !== undefined && latencyMs >= least;
    return this.isSlow;
  }
}

/** Renders the text and the tooltip for a playground. */
export function render(playground: Playground, rates: Rates, isSlow: boolean, now = Date.now()): { text: string; tooltip: string } {
  return { text: textOf(playground, rates, isSlow, now), tooltip: tooltipOf(playground, now) };
}

function textOf(playground: Playground, rates: Rates, isSlow: boolean, now: number): string {
  const up = condition(playground) === 'up';
  const isStarting = condition(playground) === 'starting';
  const away = playground.connections.map(format.away).filter(Boolean).sort()[0];
  const trip = latency(playground);
  const parts = [`$(${up ? 'vm-running' : 'vm-outline'}) ${format.title(playground)}`];
  if (!up) parts.push(format.state(playground));
  if (up && away) parts.push(`$(sync~spin) ${away}`);
  else if (up && isSlow && trip !== undefined) parts.push(`$(watch) ${format.roundTrip(trip)}`);
  if (up && rates.sent + rates.received >= 1) parts.push(`↓ ${format.size(rates.received)}/s ↑ ${format.size(rates.sent)}/s`);
  const left = format.timeLeft(playground.endsAt, now);
  if (up || isStarting) parts.push(left && playground.keptSince !== undefined ? `${left} kept` : left);
  return parts.filter(Boolean).join(' · ');
}

function tooltipOf(playground: Playground, now: number): string {
  const count = playground.connections.length;
  const resumed = format.resumed(playground.connections.reduce((sum, one) => sum + one.resumed, 0));
  const trip = latency(playground);
  const lines = [
    `${format.title(playground)} (${playground.template.name}), ${format.state(playground)}`,
    `${count} connection${count === 1 ? '' : 's'}${resumed && `, ${resumed}`}`,
  ];
  if (trip !== undefined) lines.push(`Latency: ${format.roundTrip(trip)}`);
  const end = format.end(playground, now);
  const keep = playground.persistent ? '' : `, or run "Playgrounds: ${MAKE_PERSISTENT}"`;
  if (end && playground.keptSince !== undefined) lines.push(`It is kept while it is used: its own end was ${format.clock(playground.keptSince)}.`);
  if (end) lines.push(`It ${end}. Click to extend it${keep}.`);
  return lines.join('\n');
}

const BACKGROUNDS: Record<Lifetime['urgency'], vscode.ThemeColor | undefined> = {
  none: undefined,
  warning: new vscode.ThemeColor('statusBarItem.warningBackground'),
  error: new vscode.ThemeColor('statusBarItem.errorBackground'),
};

export class StatusBar implements Disposable {
  private readonly item = vscode.window.createStatusBarItem('playgrounds.status', vscode.StatusBarAlignment.Left, 90);
  private readonly throughput = new Throughput();
  private readonly lifetime = new Lifetime();
  private readonly slowness = new Slowness();
  private readonly subscriptions: Disposable[];
  private readonly clock: NodeJS.Timeout;

  constructor(
    private readonly host: string,
    private readonly watch: Watch,
    private readonly act: (command: Command, id: string) => Promise<void>,
  ) {
    this.item.name = 'Playground';
    const update = (): void => {
      this.update();
    };
    this.subscriptions = [this.item, watch.hold(true), watch.onDidChange(update)];
    this.clock = setInterval(update, TICK_MS);
    this.update();
  }

  dispose(): void {
    clearInterval(this.clock);
    for (const subscription of this.subscriptions) subscription.dispose();
  }

  private update(): void {
    const { situation, playgrounds } = this.watch;
    if (situation.kind === 'loading') return;
    const playground = findByHost(this.host, playgrounds);
    // An outdated list does not prove that the playground has ended.
    if (situation.kind === 'known') this.announce(this.lifetime.checkEnd(playground));
    if (playground) this.announce(this.lifetime.checkTimeLeft(playground, warningMinutes()));
    this.show(playground);
  }

  private show(playground: Playground | undefined): void {
    if (!playground) {
      this.item.hide();
      return;
    }
    const isSlow = this.slowness.check(latency(playground), slowLatency());
    const { text, tooltip } = render(playground, this.throughput.measure(playground.connections), isSlow);
    this.item.text = text;
    this.item.tooltip = tooltip;
    this.item.backgroundColor = BACKGROUNDS[this.lifetime.urgency];
    this.item.command = { title: 'Extend', command: 'playgrounds.extend', arguments: [playground.id] };
    this.item.show();
  }

  private announce(notice: Notice | undefined): void {
    if (!notice) return;
    const { id, message, choices } = notice;
    showingFailure(async () => {
      const answer = await vscode.window.showWarningMessage(message, ...choices.map((one) => one.button));
      const choice = choices.find((one) => one.button === answer);
      if (!choice) return;
      await this.act(choice.command, id);
      // The remote server of the window ended with the machine.
      if (choice.reload) await vscode.commands.executeCommand('workbench.action.reloadWindow');
    });
  }
}

function warningMinutes(): number {
  return vscode.workspace.getConfiguration('playgrounds').get<number>('warnBeforeEnd') ?? 10;
}

function slowLatency(): number {
  return vscode.workspace.getConfiguration('playgrounds').get<number>('slowLatency') ?? 300;
}
