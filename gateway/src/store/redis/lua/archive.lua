-- A completed room on its way into the archive, and back out of it. These operations come alone in their batch.

-- Most messages of one part.
local PART = 256
-- What is put back in parts is let go if it is not made a room of within so long, ms.
local UNFINISHED = 3600 * 1000

-- All of it but its messages, JSON: see gateway/src/store/op.rs, Exported.
local function header(c)
  cold(c)
  rest(c)
  local meta = read('HMGET', c.keys[META], 'created', 'active', 'completed', 'others')
  local function standing_list(part)
    local out, stored = {}, read('ZRANGEBYSCORE', side_key(c, part), '(' .. c.ts, '+inf', 'WITHSCORES')
    for k = 1, #stored, 2 do
      local ends = tonumber(stored[k + 1])
      out[#out + 1] = '[' .. quote(stored[k]) .. ',' .. (ends < math.huge and format('%d', ends) or 'null') .. ']'
    end
    return '[' .. concat(out, ',') .. ']'
  end
  local settings = {}
  for name, value in pairs(settings_of(c)) do settings[#settings + 1] = quote(name) .. ':' .. value end
  return '{"epoch":"' .. c.epoch .. '","seq":' .. format('%d', c.seq) .. ',"version":' .. format('%d', c.version)
    .. ',"created":' .. meta[1] .. ',"active":' .. meta[2] .. ',"completed":' .. (meta[3] or meta[2])
    .. ',"peak":' .. format('%d', c.peak) .. ',"joins":' .. format('%d', c.joins)
    .. ',"sessionMs":' .. format('%d', c.session) .. ',"others":' .. (meta[4] or '0')
    .. ',"past":"' .. past_of(c) .. '","settings":{' .. concat(settings, ',') .. '},"state":{' .. all_state(c) .. '},"members":[' .. all_users(c)
    .. '],"bans":' .. standing_list('bans') .. ',"mutes":' .. standing_list('mutes') .. '}'
end

local function not_completed(c, at)
  if not c.epoch then
    gone(c, at)
  elseif not is_completed(c) then
    refuse(c, at, 'conflict', 'the room is not completed')
  else
    return false
  end
  return true
end

-- Z: rank of the first message. Answer: { header (empty but for rank 0), rank to go on with or -1, messages }.
OPS.Z = function(c, i, at)
  local rank = tonumber(c.argv[i])
  if not_completed(c, at) then return i + 1 end
  local ids = read('ZRANGE', c.keys[MESSAGES], rank, rank + PART - 1)
  local texts = #ids > 0 and many(read, 'HMGET', c.keys[MESSAGE], ids, #ids) or {}
  local some, bytes, next_rank = {}, 0, #ids == PART and rank + PART or -1
  for k = 1, #ids do
    if #some > 0 and bytes + #(texts[k] or '') > c.limits.page_bytes then
      next_rank = rank + k - 1
      break
    end
    if texts[k] then some[#some + 1], bytes = texts[k], bytes + #texts[k] end
  end
  c.out[at] = { rank == 0 and header(c) or '', next_rank, some }
  return i + 1
end

-- K: epoch, seq: what has been archived. The room goes if it is still that. Answer: 0.
OPS.K = function(c, i, at)
  local epoch, seq = c.argv[i], tonumber(c.argv[i + 1])
  if not not_completed(c, at) then
    if epoch == c.epoch and seq == c.seq then
      c.removed, c.out[at] = true, 0
    else
      refuse(c, at, 'conflict', 'the room is not what was archived')
    end
  end
  return i + 2
end

-- What the room's last commands did, for as long as they are remembered: should the room be opened again, whoever sends
-- one of them again is to get its answer.
local function ended_key(c, key) return 'rooms:{' .. c.room .. '}:ended:' .. (key - COMMANDS_0) end

local function remove(c)
  for key = COMMANDS_0, COMMANDS_1 do
    -- With its TTL. A room without commands has none.
    if call('EXISTS', c.keys[key]) == 1 then call('RENAME', c.keys[key], ended_key(c, key)) end
  end
  call('UNLINK', unpack(c.keys))
  unlink_standing(c)
end

-- Puts them back. A key ends with the window after its own, and so tells which that is.
local function recall(c)
  local number, here, there = windows(c)
  local function of_window(key, window)
    local ended = ended_key(c, key)
    if call('PEXPIRETIME', ended) == (window + 2) * c.limits.dedupe then
      call('RENAME', ended, c.keys[key])
      return true
    end
    call('UNLINK', ended)
    return false
  end
  local newer, older = of_window(here, number), of_window(there, number - 1)
  c.commands, c.earlier = newer and number or older and number - 1 or -1, newer and older
end

-- t: why the room could not be archived, ms until it is worth another try. Answer: 0.
OPS.t = function(c, i, at)
  if not not_completed(c, at) then
    c.out[at], c.kept = 0, true
    call('HSET', c.keys[META], 'trouble', c.argv[i], 'pause', format('%d', c.now + c.argv[i + 1]))
  end
  return i + 2
end

-- o: a list of message id, ms and text: a part of a room that is to be. Answer: 0.
OPS.o = function(c, i, at)
  local argv, n = c.argv, tonumber(c.argv[i])
  local stop = i + 1 + 3 * n
  c.out[at] = 0
  if c.epoch or n == 0 then return stop end
  local index, texts = {}, {}
  for k = i + 1, stop - 1, 3 do
    index[#index + 1], index[#index + 2] = argv[k + 1], argv[k]
    texts[#texts + 1], texts[#texts + 2] = argv[k], argv[k + 2]
  end
  many(call, 'ZADD', c.keys[MESSAGES], index, #index)
  many(call, 'HSET', c.keys[MESSAGE], texts, #texts)
  local ends = format('%d', c.now + UNFINISHED)
  call('PEXPIREAT', c.keys[MESSAGES], ends)
  call('PEXPIREAT', c.keys[MESSAGE], ends)
  return stop
end

-- O: epoch, past, seq, completed, version, created, peak, joins, session, others, settings: a list of setting and value,
-- state: a list of field and value, members: a list of id, name, joined (ms), position (JSON, or empty) and a list of name
-- and value, bans and mutes: lists of user and ms, or empty for ever. Makes the room of that and of what `o` has put there,
-- unless it is there already. Answer: 0.
OPS.O = function(c, i, at)
  local argv, k = c.argv, i
  local function take()
    k = k + 1
    return argv[k - 1]
  end
  local function integer_of() return tonumber(take()) end
  local fields = { epoch = take(), past = take() }
  for _, name in ipairs({ 'seq', 'completed', 'version', 'created', 'peak', 'joins', 'session', 'others' }) do
    fields[name] = integer_of()
  end
  local function pairs_of()
    local out = {}
    for _ = 1, integer_of() do
      local name = take()
      out[#out + 1] = { name, take() }
    end
    return out
  end
  local settings, state, members_list = pairs_of(), pairs_of(), {}
  for _ = 1, integer_of() do
    local member = { id = take(), name = take(), joined = integer_of(), position = take() }
    member.presence = pairs_of()
    members_list[#members_list + 1] = member
  end
  local bans, mutes = pairs_of(), pairs_of()
  c.out[at] = 0
  if not c.epoch then
    c.restored = { fields = fields, settings = settings, state = state, members = members_list, bans = bans, mutes = mutes }
  end
  return k
end

-- Makes the room. Its life goes on under another epoch: who had heard of its past is given a picture.
local function write_restored(c)
  local r, keys = c.restored, c.keys
  local f = r.fields
  for key = 1, #keys do
    if key ~= MESSAGES and key ~= MESSAGE then call('UNLINK', keys[key]) end
  end
  if f.completed > c.now then
    -- Another server's clock was ahead; a room's does not fall.
    c.now = f.completed
    c.ts = format('%d', c.now)
  end
  create(c, f.epoch)
  c.fresh, c.seq, c.before, c.past, c.lf, c.mark = false, f.seq, f.seq, f.past, f.seq + 1, f.seq
  new_epoch(c, false)
  recall(c)
  local settings, now = {}, c.ts
  for _, item in ipairs(r.settings) do settings[item[1]] = item[2] end
  c.settings = settings
  c.guard = { again = true }
  set_rules(c, settings)
  for part, list in pairs({ bans = r.bans, mutes = r.mutes }) do
    for _, item in ipairs(list) do
      local ends = item[2] == '' and math.huge or tonumber(item[2])
      if ends > c.now then
        stand(c, part, item[1], ends)
      end
    end
    if c[part] then write_standing(c, part) end
  end
  local sb, fields = 0, {}
  for _, item in ipairs(r.state) do
    fields[#fields + 1], fields[#fields + 2] = item[1], item[2]
    sb = sb + #item[1] + #item[2]
  end
  local records, times, where = {}, {}, {}
  for k, member in ipairs(r.members) do
    local presence = {}
    for _, item in ipairs(member.presence) do presence[item[1]] = item[2] end
    local rec = { name = member.name, joinedAt = member.joined, presence = presence, conns = {}, away = c.now }
    records[2 * k - 1], records[2 * k] = member.id, encode(rec)
    times[2 * k - 1], times[2 * k] = now, member.id
    if member.position ~= '' then where[#where + 1], where[#where + 2] = member.id, member.position end
  end
  for _, some in ipairs({ { 'HSET', STATE, fields }, { 'HSET', USERS, records }, { 'ZADD', SEEN, times },
    { 'ZADD', AWAY, times }, { 'HSET', POSITIONS, where } }) do
    if #some[3] > 0 then many(call, some[1], keys[some[2]], some[3], #some[3]) end
  end
  local newest = call('ZRANGE', keys[MESSAGES], -1, -1, 'WITHSCORES')[2]
  c.life = floor(max(c.now + c.limits.ttl, newest and newest + limits_kept(c.plain_limits, c.guard).retention or 0)
    + c.limits.ttl / 60)
  local ends = ends_at(c)
  c.live = ''
  for letter, name in pairs(LETTERS) do
    if call('PEXPIREAT', side_key(c, name), ends) == 1 then c.live = c.live .. letter end
  end
  local meta = { 'epoch', c.epoch, 'run', c.run, 'past', c.past, 'active', now, 'status', 'active',
    'commands', format('%d', c.commands) .. (c.earlier and '+' or ''),
    'config', config_text(settings), 'settings', encode(settings), 'guard', encode(c.guard), 'live', c.live }
  local numbers = { seq = f.seq, version = f.version, created = f.created, peak = f.peak, joins = f.joins,
    session = f.session, others = f.others, sb = sb, lf = c.lf, mark = c.mark, lb = 0, counting = 0 }
  numbers['end'] = c.life
  for name, value in pairs(numbers) do meta[#meta + 1], meta[#meta + 2] = name, format('%d', value) end
  call('HSET', keys[META], unpack(meta))
  call('PEXPIREAT', keys[META], ends)
  c.out[5] = c.life
end
