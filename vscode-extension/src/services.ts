// The services that the actions use.

import type * as vscode from 'vscode';
import type { Binary } from './binary';
import type { Containers } from './containers';
import type { Documents } from './documents';
import type { Filter } from './filter';
import type { Pods } from './pods';
import type { PortForwards } from './portforwards';
import type { Ports } from './ports';
import type { Watch } from './watch';

export interface Services {
  binary: Binary;
  watch: Watch;
  forwards: PortForwards;
  ports: Ports;
  containers: Containers;
  pods: Pods;
  documents: Documents;
  filter: Filter;
  log: vscode.LogOutputChannel;
  context: vscode.ExtensionContext;
}
