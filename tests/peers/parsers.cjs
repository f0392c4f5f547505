// What the versions of npm's ssh-config, which editors bundle, make of an ssh configuration:
// parsers.cjs MODULES FILE HOST, one JSON object.

const fs = require('node:fs')
const path = require('node:path')

const [modules, file, host] = process.argv.slice(2)
const answers = {}
for (const name of ['ssh-config-3', 'ssh-config-4.1', 'ssh-config-4.4', 'ssh-config-5']) {
  try {
    const module = require(path.join(modules, name))
    const SSHConfig = module.default ?? module
    const found = SSHConfig.parse(fs.readFileSync(file, 'utf8')).compute(host)
    answers[name] = Object.fromEntries(Object.entries(found).map(([key, value]) => [key.toLowerCase(), value]))
  } catch (error) {
    answers[name] = { error: String(error) }
  }
}
console.log(JSON.stringify(answers))
