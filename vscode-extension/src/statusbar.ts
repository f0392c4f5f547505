// The status bar item of a playground's window: state, round trip, throughput and time left. It also announces the end.

import * as vscode from 'vscode';
import { findByHost } from './authority';
import { type Command, MAKE_PERSISTENT } from './commands';
import * as format from './format';
import { Lifetime, type Notice } from './lifetime';
import { showingFailure } from './messages';
import { type Playground, condition } from './playground';
import { type Rates, Throughput } from './throughput';
import type { Disposable, Watch } from './watch';

/** The interval at which the time left, shown in minutes, is brought up to date. */
const TICK_MS = 30_000;

/** Renders the text and the tooltip for a playground. */
export function render(playground: Playground, rates: Rates, now = Date.now()): { text: string; tooltip: string } {
  return { text: textOf(playground, rates, now), tooltip: tooltipOf(playground, now) };
}

function textOf(playground: Playground, rates: Rates, now: number): string {
  const up = condition(playground) === 'up';
  const isStarting = condition(playground) === 'starting';
  const away = playground.connections.map(format.away).filter(Boolean).sort()[0];
  const trips = playground.connections.map((one) => one.roundTripMs).filter((ms) => ms !== undefined);
  const parts = [`$(${up ? 'vm-running' : 'vm-outline'}) ${format.title(playground)}`];
  if (!up) parts.push(format.state(playground));
  if (up && away) parts.push(`$(sync~spin) ${away}`);
  else if (up && trips.length > 0) parts.push(format.roundTrip(Math.min(...trips)));
  if (up && rates.sent + rates.received >= 1) parts.push(`↓ ${format.size(rates.received)}/s ↑ ${format.size(rates.sent)}/s`);
  if (up || isStarting) parts.push(format.timeLeft(playground.endsAt, now));
  return parts.filter(Boolean).join(' · ');
}

function tooltipOf(playground: Playground, now: number): string {
  const count = playground.connections.length;
  const resumed = format.resumed(playground.connections.reduce((sum, one) => sum + one.resumed, 0));
  const lines = [
    `${format.title(playground)} (${playground.template.name}), ${format.state(playground)}`,
    `${count} connection${count === 1 ? '' : 's'}${resumed && `, ${resumed}`}`,
  ];
  const end = format.end(playground, now);
  const keep = playground.persistent ? '' : `, or run "Playgrounds: ${MAKE_PERSISTENT}"`;
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
    const { text, tooltip } = render(playground, this.throughput.measure(playground.connections));
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
