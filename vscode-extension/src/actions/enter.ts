// "Connect to Playground...", in the menu of the remote indicator: a playground, and the way into it.

import * as vscode from 'vscode';
import * as format from '../format';
import { condition } from '../playground';
import type { Services } from '../services';
import { open, openNew, terminal } from './connect';
import { start } from './start';

const WAYS = { 'Open in New Window': openNew, 'Open in This Window': open, 'Open Terminal': terminal };

export async function connect(services: Services): Promise<void> {
  const { watch } = services;
  const all = watch.situation.kind === 'known' ? watch.playgrounds : await watch.fetch();
  const items = all
    .filter((one) => condition(one) !== 'gone')
    .map((one) => ({ label: format.title(one), description: `${one.template.name} · ${format.state(one)}`, detail: one.host, id: one.id }));
  const another = { label: 'Start a Playground...', description: '', detail: '', id: '' };
  const options = { placeHolder: 'Select a playground to connect to', matchOnDescription: true, matchOnDetail: true };
  const chosen = await vscode.window.showQuickPick([...items, another], options);
  if (!chosen) return;
  if (chosen === another) {
    await start(services);
    return;
  }
  const names = Object.keys(WAYS) as (keyof typeof WAYS)[];
  const way = await vscode.window.showQuickPick(names, { placeHolder: `Select how to connect to ${chosen.label}` });
  if (way) await WAYS[way as keyof typeof WAYS](services, chosen.id);
}
