// The entry point: builds the parts and joins them. The logic is in the binary; the extension shows its output.

import * as vscode from 'vscode';
import { ACTIONS, type Subject } from './actions';
import { openLink } from './actions/link';
import { aliasesOf, knownAliases, rememberAliases } from './aliases';
import { playgroundHost } from './authority';
import { Binary } from './binary';
import { COMMANDS, type Command, SECTION, VIEW } from './commands';
import { Containers } from './containers';
import { Documents, SCHEME } from './documents';
import { Filter } from './filter';
import { showFailure, showingFailure } from './messages';
import { Pods } from './pods';
import { PortForwards } from './portforwards';
import { Ports } from './ports';
import { prewake, windowAuthority } from './prewake';
import type { Services } from './services';
import { Solved } from './solved';
import { StatusBar } from './statusbar';
import { type Node, Tree } from './tree';
import { View } from './view';
import { Watch } from './watch';

/** The parts that the tests in a real VS Code inspect. */
export interface Api {
  watch: Watch;
  tree: Tree;
  forwards: PortForwards;
  /** Does what happens when a window with this authority opens. */
  enter: (authority: string | undefined) => Promise<void>;
}

/** Activates the extension. In a playground's window it resolves once the playground is awake, and Remote-SSH waits for that. */
export async function activate(context: vscode.ExtensionContext): Promise<Api> {
  const services = build(context);
  const { watch, forwards, ports, containers, pods, filter } = services;
  const tree = new Tree(watch, forwards, ports, containers, pods, filter);
  const view = vscode.window.createTreeView<Node>(VIEW, { treeDataProvider: tree, showCollapseAll: true });
  const openPage = (id: string): Promise<void> => ACTIONS['playgrounds.page'](services, id);
  context.subscriptions.push(tree, new View(view, watch, tree, ports, containers, pods, filter), new Solved(watch, openPage));
  context.subscriptions.push(...registerCommands(services), refreshOnNewSettings(watch), registerLinks(services));
  const enter = (authority: string | undefined): Promise<void> => enterWindow(services, authority);
  await enter(windowAuthority());
  return { watch, tree, forwards, enter };
}

function build(context: vscode.ExtensionContext): Services {
  const log = vscode.window.createOutputChannel('Playgrounds', { log: true });
  const write = (line: string): void => {
    log.info(line);
  };
  const settings = (): vscode.WorkspaceConfiguration => vscode.workspace.getConfiguration(SECTION);
  const binary = new Binary({
    configured: () => settings().get<string>('binary', ''),
    options: () => (settings().get<boolean>('local', false) ? ['--local'] : []),
    extension: { folder: context.extensionPath, version: (context.extension.packageJSON as { version: string }).version },
    log: write,
  });
  const watch = new Watch(binary, write);
  const forwards = new PortForwards(binary, showFailure);
  const ports = new Ports(binary, watch);
  const containers = new Containers(binary, watch, write);
  const pods = new Pods(binary, watch, write);
  const documents = new Documents(binary);
  context.subscriptions.push(rememberAliases(watch, context.globalState));
  context.subscriptions.push(log, binary, watch, forwards, ports, containers, pods, documents);
  context.subscriptions.push(vscode.workspace.registerTextDocumentContentProvider(SCHEME, documents));
  return { binary, watch, forwards, ports, containers, pods, documents, filter: new Filter(), log, context };
}

function registerCommands(services: Services): vscode.Disposable[] {
  return COMMANDS.map((command) =>
    vscode.commands.registerCommand(command, (subject?: Subject) => {
      showingFailure(() => ACTIONS[command](services, subject));
    }),
  );
}

function registerLinks(services: Services): vscode.Disposable {
  return vscode.window.registerUriHandler({
    handleUri: (uri) => {
      showingFailure(() => openLink(services, uri));
    },
  });
}

function refreshOnNewSettings(watch: Watch): vscode.Disposable {
  return vscode.workspace.onDidChangeConfiguration((change) => {
    const isOfBinary = ['binary', 'local'].some((key) => change.affectsConfiguration(`${SECTION}.${key}`));
    if (isOfBinary) showingFailure(() => watch.refresh());
  });
}

/** Wakes the playground of a window and shows the status bar item. Does nothing in other windows. */
export async function enterWindow(services: Services, authority = ''): Promise<void> {
  const { binary, watch, context } = services;
  const remembered = playgroundHost(authority, knownAliases(context.globalState));
  if (remembered === undefined) return;
  const host = await prewake(binary, watch, remembered, (all) => playgroundHost(authority, aliasesOf(all)));
  if (host === undefined) return;
  const act = (command: Command, id: string): Promise<void> => ACTIONS[command](services, id);
  context.subscriptions.push(new StatusBar(host, watch, act));
}
