-- The function itself: works out, writes, answers.

function create(c, nonce)
  c.shut = false
  c.epoch, c.fresh, c.seq, c.before, c.life, c.live = nonce, true, 0, 0, 0, ''
  c.lf, c.mark, c.lb, c.version, c.sb = 1, 0, 0, 0, 0
  c.peak, c.joins, c.members, c.were, c.status, c.config, c.past, c.commands = 0, 0, 0, 0, 'active', '{}', '', -1
  c.session, c.counting = 0, 0
end

-- A command that writes a key that was not read; its error if it refuses.
local function put(command, key, items, count)
  local reply
  if count == 2 then
    reply = try(command, key, items[1], items[2])
  else
    reply = many(try, command, key, items, count)
  end
  return type(reply) == 'table' and reply.err
end

-- Events and messages. If a key refuses, all are as before.
local function write_events(c)
  local keys = c.keys
  local refused, at = put('ZADD', keys[LOG], new_log, 2 * c.events_n), LOG
  if refused then damaged(keys[at], refused) end
  if c.sent_n == 0 then return end
  refused, at = put('ZADD', keys[MESSAGES], new_index, 2 * c.sent_n), MESSAGES
  if not refused then
    refused, at = put('HSET', keys[MESSAGE], new_texts, 2 * c.sent_n), MESSAGE
    if not refused then return end
    for k = 1, c.sent_n do call('ZREM', keys[MESSAGES], new_index[2 * k]) end
  end
  call('ZREMRANGEBYSCORE', keys[LOG], '(' .. format('%d', c.before), '+inf')
  damaged(keys[at], refused)
end

-- Sets what `value_of` gives for the names, then removes the others: in this order, so that the key does not vanish and
-- come back without a TTL.
local function write_hash(key, names, value_of)
  local set, n, del, m = {}, 0, {}, 0
  for name in pairs(names) do
    local value = value_of(name)
    if value then
      set[n + 1], set[n + 2], n = name, value, n + 2
    else
      del[m + 1], m = name, m + 1
    end
  end
  if n > 0 then many(call, 'HSET', key, set, n) end
  if m > 0 then many(call, 'HDEL', key, del, m) end
  return n > 0, m > 0
end

local function write_users(c)
  local set, n, del, m = {}, 0, {}, 0
  write_hash(c.keys[USERS], c.touched, function(id) return c.users[id] and encode(c.users[id]) end)
  for id in pairs(c.touched) do
    if c.users[id] then
      set[n + 1], set[n + 2], n = c.ts, id, n + 2
    else
      del[m + 1], m = id, m + 1
    end
  end
  if n > 0 then many(call, 'ZADD', c.keys[SEEN], set, n) end
  if m > 0 then many(call, 'ZREM', c.keys[SEEN], del, m) end
end

-- Who is away, and who is not any more.
local function write_aways(c)
  local set, n, del, m = {}, 0, {}, 0
  for id, since in pairs(c.aways) do
    if since then
      set[n + 1], set[n + 2], n = format('%d', since), id, n + 2
    else
      del[m + 1], m = id, m + 1
    end
  end
  if n > 0 then many(call, 'ZADD', c.keys[AWAY], set, n) end
  if m > 0 then many(call, 'ZREM', c.keys[AWAY], del, m) end
  c.away_set = n > 0
end

-- Where members are, and who was active. Places of those who have left go, also where they are members again by now;
-- last, so that the key does not vanish and come back without a TTL.
local function write_marks(c)
  if c.moved then
    local set, n = {}, 0
    for id in pairs(c.moved) do
      if c.places[id] then set[n + 1], set[n + 2], n = id, c.places[id], n + 2 end
    end
    if n > 0 then many(call, 'HSET', c.keys[POSITIONS], set, n) end
    c.placed = n > 0
  end
  if c.departed then
    local del, n = {}, 0
    for _, id in ipairs(c.departed) do
      if not c.places[id] then n, del[n + 1] = n + 1, id end
    end
    if n > 0 then many(call, 'HDEL', c.keys[POSITIONS], del, n) end
  end
  if c.active then
    for k = 1, #c.active, PIECE do
      call('ZADD', c.keys[SEEN], 'XX', unpack(c.active, k, min(k + PIECE - 1, #c.active)))
    end
  end
end

local function purge(c)
  call('ZREM', c.keys[MESSAGES], unpack(c.expired))
  call('HDEL', c.keys[MESSAGE], unpack(c.expired))
end

local function covered(c, live, letter)
  if find(live, letter, 1, true) then return live end
  local there = call('PEXPIREAT', sub(c.channel, 1, -7) .. LETTERS[letter], ends_at(c))
  return there == 1 and live .. letter or live
end

-- Keeps every key's TTL. When the room's end is due to move it moves a sixtieth of its life further than it must, so
-- that this is rare, and all keys with it; else keys that this batch may have made get the end that holds.
local function renew(c)
  local l, live = c.limits, c.live
  local ttl = c.guard and c.guard.status == 'waiting' and l.waiting or l.ttl
  local want = c.now + ttl
  if c.sent_n > 0 and c.now + l.retention > want then want = c.now + l.retention end
  if c.guard_changed then
    -- Messages may be kept for longer from now on, or the room end otherwise.
    if c.newest then want = max(want, c.newest + l.retention) end
    want = max(want, c.life + 1)
  end
  if want > c.life then
    c.life, live = floor(want + ttl / 60), ''
    local text = ends_at(c)
    local prefix = sub(c.channel, 1, -7)
    for letter, name in pairs(LETTERS) do
      if call('PEXPIREAT', prefix .. name, text) == 1 then live = live .. letter end
    end
    c.renewed, c.live = true, live
    c.out[5] = c.life
    return
  end
  if c.events_n > 0 then live = covered(c, live, 'l') end
  if c.sent_n > 0 then
    live = covered(c, covered(c, live, 'm'), 'h')
  elseif c.expired then
    live = gsub(live, '[mh]', '')
  end
  if c.touched_any then
    live = c.members > 0 and covered(c, covered(c, live, 'u'), 'e') or gsub(live, '[ue]', '')
  end
  if c.away_any then live = c.away_set and covered(c, live, 'a') or gsub(live, 'a', '') end
  if c.placed then
    live = covered(c, live, 'p')
  elseif c.touched_any then
    -- Somebody may have left, and the last place with it.
    live = gsub(live, 'p', '')
  end
  if c.bans then live = covered(c, gsub(live, 'b', ''), 'b') end
  if c.mutes then live = covered(c, gsub(live, 't', ''), 't') end
  if c.state_set then live = covered(c, live, 's') end
  if c.state_removed then live = gsub(live, 's', '') end
  if live ~= c.live then c.renewed, c.live = true, live end
end

local function write_meta(c)
  local key, seq = c.keys[META], c.s or format('%d', c.seq)
  if not (c.fresh or c.renewed or c.patched_any or c.counted or c.trimmed or c.windowed or c.renamed or c.configured
    or c.guard_changed) then
    call('HSET', key, 'seq', seq, 'active', c.ts)
  else
    local set = { 'seq', seq, 'active', c.ts }
    local function put_integers(...)
      for _, field in ipairs({ ... }) do
        set[#set + 1], set[#set + 2] = field, format('%d', c[field])
      end
    end
    if c.fresh or c.renamed then
      for _, item in ipairs({ 'epoch', c.epoch, 'run', c.run, 'past', c.past }) do set[#set + 1] = item end
    end
    if c.fresh or c.windowed then
      set[#set + 1], set[#set + 2] = 'commands', format('%d', c.commands) .. (c.earlier and '+' or '')
    end
    if c.renewed then
      for _, item in ipairs({ 'end', format('%d', c.life), 'live', c.live }) do set[#set + 1] = item end
    end
    if c.fresh or c.trimmed then put_integers('lf', 'mark', 'lb') end
    if c.fresh or c.patched_any then put_integers('version', 'sb') end
    if c.fresh or c.counted then put_integers('peak', 'joins', 'session', 'counting') end
    if c.fresh or c.configured then
      for _, item in ipairs({ 'status', c.status, 'config', c.config }) do set[#set + 1] = item end
    end
    if c.fresh then set[#set + 1], set[#set + 2] = 'created', c.ts end
    if c.settings then set[#set + 1], set[#set + 2] = 'settings', encode(c.settings) end
    if c.completed then set[#set + 1], set[#set + 2] = 'completed', format('%d', c.completed) end
    if c.guard_changed then set[#set + 1], set[#set + 2] = 'guard', c.guard and encode(c.guard) or '' end
    call('HSET', key, unpack(set))
    if c.renewed then call('PEXPIREAT', key, ends_at(c)) end
  end
  if c.others > 0 then try('HINCRBY', key, 'others', c.others) end
end

-- Of a batch that makes no event but keeps the room: its life, where that is due, and its epoch.
local function keep(c)
  local key = c.keys[META]
  write_marks(c)
  if c.renamed then call('HSET', key, 'epoch', c.epoch, 'run', c.run, 'past', c.past) end
  if c.kept then renew(c) end
  if c.renewed then
    call('HSET', key, 'end', format('%d', c.life), 'live', c.live)
    call('PEXPIREAT', key, ends_at(c))
  end
end

-- Tidying up does not keep a room alive.
local function tidy(c)
  if c.expired then
    purge(c)
    c.live = gsub(c.live, '[mh]', '')
  end
  if c.away_any then
    write_aways(c)
    c.live = gsub(c.live, 'a', '')
  end
  call('HSET', c.keys[META], 'live', c.live)
end

local function write(c)
  local keys, n = c.keys, c.events_n
  local due = c.seq % EVERY < n
  local full = due or c.bytes > c.limits.log_bytes / 64
  if full then cold(c) end
  if due and not c.fresh then c.expired = c.expired or expired(c) end
  if c.guard_changed then
    c.newest = c.sent_n > 0 and c.now or not c.fresh and read('ZRANGE', keys[MESSAGES], -1, -1, 'WITHSCORES')[2] or nil
  end
  -- From here on the room changes. A room that is made finds nothing of one whose meta is gone.
  if c.fresh then
    call('UNLINK', unpack(keys, 2))
    unlink_standing(c)
  end
  if n > 0 then write_events(c) end
  if c.learnt_n > 0 then write_commands(c) end
  if c.touched_any then write_users(c) end
  if c.away_any then write_aways(c) end
  write_marks(c)
  if c.edits then write_edits(c) end
  if c.bans then write_standing(c, 'bans') end
  if c.mutes then write_standing(c, 'mutes') end
  if c.patched_any then
    c.state_set, c.state_removed = write_hash(keys[STATE], c.patched, function(name) return c.fields[name] end)
  end
  if c.expired then purge(c) end
  if full then trim(c) end
  renew(c)
  write_meta(c)
  -- Before the event that says who is there: no number is to come behind it.
  if c.turned_back then call('PUBLISH', c.channel, 'C') end
  if n > 0 then
    call('PUBLISH', c.channel, 'E' .. c.epoch .. ' ' .. new_log[1] .. RS
      .. (n == 1 and new_events[1] or concat(new_events, RS, 1, n)))
    if c.bytes > 65536 then new_events, new_log, new_index, new_texts, new_commands = {}, {}, {}, {}, {} end
  end
  if c.mode == HOW_MANY and (c.turned or c.members ~= c.were) then call('PUBLISH', c.channel, 'C' .. c.members) end
end

local function room(keys, argv)
  if not call then bind() end
  local time = call('TIME')
  local meta = try('HMGET', keys[META], 'epoch', 'seq', 'active', 'end', 'live', 'run', 'commands', 'guard')
  if meta.err then damaged(keys[META], meta.err) end
  local now, ts = time[1] * 1000 + floor(time[2] / 1000), nil
  local channel, epoch, plain_limits = argv[2], meta[1], limits_of(argv[1])
  local c = {
    keys = keys, argv = argv, limits = plain_limits, plain_limits = plain_limits, shut = not epoch, channel = channel, room = sub(channel, 7, -9),
    epoch = epoch, seq = 0, before = 0, life = 0, live = meta[5], now = now, ts = false, s = false,
    events_n = 0, sent_n = 0, learnt_n = 0, others = 0, bytes = 0, run = server_run(now),
  }
  if epoch then
    local seq, active, life = tonumber(meta[2]), tonumber(meta[3]), tonumber(meta[4])
    if not (seq and active and life and c.live) then damaged(keys[META], 'not the record of a room') end
    c.seq, c.before, c.life = seq, seq, life
    local window, earlier = match(meta[7] or '-1', '^(%-?%d+)(%+?)$')
    c.commands, c.earlier = tonumber(window) or -1, earlier == '+'
    if meta[8] then
      c.guard = guard_of(c, meta[8])
      c.limits, c.shut = limits_kept(plain_limits, c.guard), is_completed(c) or false
    end
    if active > now then
      now = active
      c.now = now
    end
  end
  c.ts = format('%d', now)
  if epoch and meta[6] ~= c.run then new_epoch(c, true) end
  local out = { 1, now, '', 0, 0, 0, 0 }
  c.out = out

  local i, n, at = 3, #argv, 6
  while i <= n do
    at = at + 1
    local place
    i, place = OPS[argv[i]](c, i + 1, at)
    at = place or at
  end
  if c.pending then flush(c) end
  settle(c)
  if c.asked and c.asked[1] then answer_joins(c) end
  if c.restored then
    write_restored(c)
  elseif c.removed then
    remove(c)
  elseif c.events_n > 0 or c.touched_any or c.learnt_n > 0 or c.guard_changed then
    write(c)
  else
    if c.expired or c.away_any then tidy(c) end
    if c.kept or c.renamed then keep(c) end
  end
  if c.ended then
    for _, part in ipairs(STANDING) do
      call('ZREMRANGEBYSCORE', side_key(c, part), '-inf', c.ts)
    end
  end
  if c.paced or c.cooled_any then write_paces(c) end
  if c.signals then
    for _, payload in ipairs(c.signals) do call('PUBLISH', channel, payload) end
  end
  out[3], out[4] = c.epoch or '', c.seq
  return out
end

redis.register_function('@NAME@', room)
