// Bundles the extension and its tests in a real VS Code, one file each. `--production` bundles only the extension, minified.
import { build } from 'esbuild';

const production = process.argv.includes('--production');
const options = {
  bundle: true,
  external: ['vscode'],
  format: 'cjs',
  platform: 'node',
  target: 'node18',
  minify: production,
  sourcemap: production ? false : 'linked',
};
await build({ ...options, entryPoints: ['src/extension.ts'], outfile: 'dist/extension.js' });
if (!production) await build({ ...options, entryPoints: ['test/vscode/extension-host.ts'], outfile: 'dist/test/extension-host.js' });
