--[[ Commands that have happened, so that none happens twice.

A command's key, an argument of the operations that take one: 16 characters of fingerprint, then the field: user id, RS,
command id; empty for a command that is not to be remembered. `commands:0` and `commands:1`: field -> fingerprint, seq,
ts and, of a patch, the version, after one another with spaces. The message of a `message.send` is not kept: who sends
the command again has it.

Time is cut into windows as long as ids are remembered. A command is written to the key of its window, of even or odd
number; both keys are looked at; a key ends with the window after its own. So an id is remembered for one to two
windows, and nothing has to be swept.

Answer for a command that has happened: { '=', seq, ts, epoch, version? }. ]]

-- Stands for a command of this batch whose event is yet to be made (`announce` in users.lua).
local UNMADE = ''

-- The keys of the window and of the one before it, by their places in KEYS.
local function windows(c)
  local number = floor(c.now / c.limits.dedupe)
  local here = COMMANDS_0 + number % 2
  return number, here, COMMANDS_0 + COMMANDS_1 - here
end

-- The keys that hold something, the newer window's first; false for none.
local function remembered_in(c)
  if c.fresh or not c.epoch then return false, false end
  local number, here, there = windows(c)
  local keys = c.keys
  if c.commands == number then return keys[here], c.earlier and keys[there] end
  return false, c.commands == number - 1 and keys[there]
end

-- Looks for `fields` among the remembered; a field that is not there is false in `c.known`.
local function look_up(c, fields)
  local n, newer, older = #fields, remembered_in(c)
  newer = newer and n > 0 and many(read, 'HMGET', newer, fields, n) or {}
  older = older and n > 0 and many(read, 'HMGET', older, fields, n) or {}
  for k = 1, n do c.known[fields[k]] = newer[k] or older[k] or false end
end

-- The same for one field.
local function look_up_one(c, field)
  local newer, older = remembered_in(c)
  local value = newer and read('HGET', newer, field) or older and read('HGET', older, field) or false
  c.known[field] = value
  return value
end

-- Whether a command has happened; if so, it is answered. Every command with a key is asked about before it is carried
-- out.
local function happened(c, at, key)
  if key == '' then return false end
  local known = c.known
  if not known then
    known = {}
    c.known = known
  end
  local field = sub(key, 17)
  local value = known[field]
  if value == nil then value = look_up_one(c, field) end
  if value == UNMADE then
    flush(c)
    value = known[field]
  end
  if not value then return false end
  if sub(value, 1, 16) ~= sub(key, 1, 16) then
    refuse(c, at, 'id_conflict', 'the id stands for another command')
    return true
  end
  local seq, ts, version = match(value, '^(%d+) (%d+) ?(%d*)', 17)
  if not seq then damaged(c.keys[COMMANDS_0], 'what was remembered of a command') end
  seq = tonumber(seq)
  c.out[at] = { '=', seq, tonumber(ts), epoch_of(c, seq), tonumber(version) }
  c.kept = true
  return true
end

-- Remembers a command that has made the event `seq`.
local function remember(c, key, seq, version)
  if key == '' then return end
  local field = sub(key, 17)
  local value = sub(key, 1, 16) .. format('%d', seq) .. ' ' .. c.ts
  if version then value = value .. ' ' .. format('%d', version) end
  local n = c.learnt_n + 2
  new_commands[n - 1], new_commands[n], c.learnt_n = field, value, n
  c.known[field] = value
end

-- Writes what was remembered. Every field was looked up, so the keys are known to be hashes.
local function write_commands(c)
  local number, here = windows(c)
  local key = c.keys[here]
  local first = c.fresh or c.commands ~= number
  if first and not c.fresh then call('UNLINK', key) end
  if c.learnt_n == 2 then
    call('HSET', key, new_commands[1], new_commands[2])
  else
    many(call, 'HSET', key, new_commands, c.learnt_n)
  end
  if first then
    call('PEXPIREAT', key, format('%d', (number + 2) * c.limits.dedupe))
    c.commands, c.earlier, c.windowed = number, c.commands == number - 1, true
  end
end
