--[[ What a room demands of commands: who is muted or banned, rates, pauses, sizes, its status.

`guard` of `meta`, JSON, is all of that in one field, so that a room without any of it costs nothing:
  status    waiting or completed; absent: active
  mutes     ms at which the last mute ends, -1: never by itself; absent: nobody is muted
  bans      the same of bans, and of those who were put out for a time
  most      members at most                      bytes     largest body of a message
  images    false: no images                     kept      retention of messages, ms
  rate      lane -> { per second, burst }        cool      lane -> ms between two commands of one user
  idle      true: archived at the end of its life

`room:{id}:mutes` and `room:{id}:bans`: zset, user id by the ms at which it ends; in `bans` RS and the id stand for a
user that was put out for a time. `room:{id}:cooldowns`: zset, lane, RS and user id by the ms from which the user may go
on. `paces` of `meta`: lane, tokens and ms, each followed by a space, of every lane whose rate is limited. ]]

local KICKED = '\30'
local STANDING = { 'bans', 'mutes', 'cooldowns' }
local LANES = { 'messages', 'state', 'moves', 'broadcasts', 'joins' }

-- What guards said lately, by their text: nearly always the same few.
local guards, guards_n = {}, 0

local function guard_of(c, text)
  if not text or text == '' then return nil end
  local guard = guards[text]
  if not guard then
    local ok
    ok, guard = pcall(decode, text)
    if not ok or type(guard) ~= 'table' then damaged(c.keys[META], 'guard') end
    if guards_n >= 1000 then guards, guards_n = {}, 0 end
    guards[text], guards_n = guard, guards_n + 1
  end
  return guard
end

-- Changes a rule; nil: it holds no more.
local function set_rule(c, name, value)
  local guard = {}
  for key, old in pairs(c.guard or {}) do guard[key] = old end
  guard[name] = value
  c.guard, c.guard_changed = next(guard) and guard or nil, true
end

local function is_completed(c)
  return c.guard and c.guard.status == 'completed'
end

-- The room's name for one of its keys that the batch has not named.
local function side_key(c, part)
  return sub(c.channel, 1, -7) .. part
end

local function unlink_standing(c)
  call('UNLINK', side_key(c, 'bans'), side_key(c, 'mutes'), side_key(c, 'cooldowns'))
end

-- A user id from its JSON text.
local function plain(quoted)
  if not find(quoted, '\\', 1, true) then return sub(quoted, 2, -2) end
  return decode('[' .. quoted .. ']')[1]
end

-- Until when `member` stands in `mutes` or `bans`; nil for not, math.huge for ever.
local function standing(c, part, member)
  local staged = c[part] and c[part][member]
  if staged ~= nil then return staged or nil end
  if c.fresh or not (c.guard and c.guard[part]) then return nil end
  local score = read('ZSCORE', side_key(c, part), member)
  score = score and tonumber(score)
  return score and score > c.now and score or nil
end

-- Stages that; false for not any more.
local function stand(c, part, member, ends)
  if not c.fresh then read('ZCARD', side_key(c, part)) end
  c[part] = c[part] or {}
  c[part][member] = ends
  if not ends then return end
  local last = c.guard and c.guard[part] or 0
  if last ~= -1 and (ends == math.huge or ends > last) then
    set_rule(c, part, ends == math.huge and -1 or ends)
  end
end

local function until_text(ends)
  return ends < math.huge and '"until":' .. format('%d', ends) or nil
end

-- Why a user is not to be in the room, and until when; nil where nothing says so.
local function put_out_for(c, id)
  if not (c.guard and c.guard.bans) then return nil end
  local ends = standing(c, 'bans', id)
  if ends then return 'banned', ends end
  ends = standing(c, 'bans', KICKED .. id)
  if ends then return 'kicked', ends end
end

-- Whether a user is banned, or put out for a time; if so, the command is refused: a gateway that has not heard of it yet
-- goes on passing on what the user sends.
local function shut_out(c, at, id)
  local code, ends = put_out_for(c, id)
  if not code then return false end
  refuse(c, at, code, code == 'banned' and 'you are banned from this room' or 'you were put out of this room for a time',
    until_text(ends))
  return true
end

-- Whether a user is muted; if so, the command is refused.
local function muted(c, at, user)
  local ends = standing(c, 'mutes', user)
  if not ends then return false end
  refuse(c, at, 'muted', 'you are muted in this room', until_text(ends))
  return true
end

local function paces_of(c)
  if not c.paces then
    c.paces = {}
    local text = not c.fresh and read('HGET', c.keys[META], 'paces') or ''
    for lane, tokens, ms in string.gmatch(text, '(%a+) (%S+) (%d+) ') do
      c.paces[lane] = { tonumber(tokens), tonumber(ms) }
    end
  end
  return c.paces
end

-- Whether the user's pause or the room's rate holds a command up; if so, it is refused, else it counts.
local function paced(c, at, lane, user)
  local guard = c.guard
  local pause, rate = guard.cool and guard.cool[lane], guard.rate and guard.rate[lane]
  local member
  if pause then
    member = lane .. '\30' .. user
    c.cooled = c.cooled or {}
    local ends = c.cooled[member] or not c.fresh and tonumber(read('ZSCORE', side_key(c, 'cooldowns'), member) or 0) or 0
    if ends > c.now then
      refuse(c, at, 'cooldown', 'slow mode: one at a time', nil, ends - c.now)
      return true
    end
  end
  if rate then
    local paces = paces_of(c)
    local per, burst = rate[1], rate[2]
    local pace = paces[lane] or { burst, c.now }
    local tokens = min(burst, pace[1] + max(0, c.now - pace[2]) * per / 1000)
    if tokens < 1 then
      refuse(c, at, 'rate_limited', 'the room takes no more of these now', nil, math.ceil((1 - tokens) * 1000 / per))
      return true
    end
    paces[lane], c.paced = { tokens - 1, c.now }, true
  end
  if pause then c.cooled[member], c.cooled_any = c.now + pause, true end
  return false
end

-- Bans, mutes, pauses and rates. `user` is an id.
local function hindered(c, at, lane, user)
  return c.guard ~= nil and (shut_out(c, at, user) or muted(c, at, user) or paced(c, at, lane, user))
end

-- Writes what is staged of a zset `part`.
local function write_standing(c, part)
  local set, n, del, m = {}, 0, {}, 0
  for member, ends in pairs(c[part]) do
    if ends then
      set[n + 1], set[n + 2], n = ends == math.huge and '+inf' or format('%d', ends), member, n + 2
    else
      del[m + 1], m = member, m + 1
    end
  end
  local key = side_key(c, part)
  if n > 0 then many(call, 'ZADD', key, set, n) end
  if m > 0 then many(call, 'ZREM', key, del, m) end
end

-- Writes what commands have used up. Also where nothing else is written.
local function write_paces(c)
  if c.paced then
    local text = {}
    for lane, pace in pairs(c.paces) do
      text[#text + 1] = lane .. ' ' .. format('%.3f %d ', pace[1], pace[2])
    end
    call('HSET', c.keys[META], 'paces', concat(text))
  end
  if c.cooled_any then
    local key, set, n, last = side_key(c, 'cooldowns'), {}, 0, 0
    for member, ends in pairs(c.cooled) do
      set[n + 1], set[n + 2], n, last = format('%d', ends), member, n + 2, max(last, ends)
    end
    call('ZREMRANGEBYSCORE', key, '-inf', c.ts)
    many(call, 'ZADD', key, set, n)
    -- The longest pause is kept; none outlives it.
    local kept = call('PEXPIRETIME', key)
    if kept < last then call('PEXPIREAT', key, format('%d', last)) end
  end
end

-- What gateways with members must know of it: JSON, or 0 for nothing.
local function rules_text(c)
  if not c.guard then return 0 end
  cold(c)
  local mutes, n = {}, 0
  local function add(user, ends)
    n = n + 1
    mutes[n] = quote(user) .. ':' .. (ends < math.huge and format('%d', ends) or '0')
  end
  if c.guard.mutes then
    local stored = c.fresh and {} or read('ZRANGEBYSCORE', side_key(c, 'mutes'), '(' .. c.ts, '+inf', 'WITHSCORES')
    for k = 1, #stored, 2 do
      if not c.mutes or c.mutes[stored[k]] == nil then add(stored[k], tonumber(stored[k + 1])) end
    end
    for user, ends in pairs(c.mutes or {}) do
      if ends then add(user, ends) end
    end
  end
  return '{"config":' .. c.config .. ',"mutes":{' .. concat(mutes, ',') .. '}}'
end

-- Keys that live as long as the room, by their letters in `live`.
local LETTERS = { l = 'log', m = 'messages', h = 'message', u = 'users', e = 'seen', s = 'state', a = 'away',
  p = 'positions', b = 'bans', t = 'mutes' }
-- A room that is archived when its life ends is kept for so long until it is, and one that is completed, ms.
local SPARE = 24 * 3600 * 1000

-- When its keys go, as text: `life` is when it ends.
local function ends_at(c)
  local spare = c.guard and (c.guard.idle or c.guard.status == 'completed') and SPARE or 0
  return format('%d', c.life + spare)
end
