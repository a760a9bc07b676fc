--[[ What is known of all rooms and all nodes: one key a call, as they have no slot in common.

An *instance* is one life of a node's lease: `<node id>~<eight characters>`. A node takes another one when it was without
a lease, so that what is done about the old one cannot touch who is here under the new. It stands with each connection
in a member's record (users.lua).

KEYS[1] and ARGV:
  rooms:due  zset  room id by the ms at which something is due in it, or sooner; `!room id` of one that is claimed, by the
                   ms at which the claim is over
    touch, ms, room       something is due within so many ms: sooner than that stays
    claim, most, ms       answer: rooms that are due, none of which is given to anybody else for so many ms
    swept, room, ms       the claim is over; something is due at that time, or sooner if that stands there by now. No ms:
                          the room is gone
    still, room, ms       the claim goes on for so many ms more
  nodes      zset  instance by the ms at which its lease ends; `!instance` of one that is dead and is being taken out of
                   its rooms, by the ms at which whoever does so is thought to be dead, too
    enter, instance       it is about to have members somewhere; if it is without a lease, they are to be taken out
    beat, instance, lease (ms), claim (ms), look (1 or 0), former
                          renews a lease; answer: { state, the server's run (epochs.lua), dead instance … }. state: 2 it
                          is held, 1 it had ended and
                          nobody had noticed, 0 it is lost: the instance is taken for dead, or is not known. One that is
                          not known yet is there from now on if there is a `former`: a lease of the same node that is
                          over, whatever stands under it being taken out, or '-' for none. With `look`, and only to who
                          has held its own lease until now, dead instances are handed out, each for `claim`
    mourn, instance, ms   the caller goes on taking it out: the claim is for so many ms more
    forget, instance      nothing stands under it any more; unless something has entered since the last `mourn`
    live                  the instances whose lease holds
    resign, instance      its lease is over; whatever stands under it is taken out by whoever looks next ]]

-- Most dead nodes handed out at once.
local MOST_DEAD = 4

-- A lease is over.
local function resign(key, now, instance)
  call('ZREM', key, instance)
  call('ZADD', key, 'NX', format('%d', now), '!' .. instance)
end

local INDEX = {
  touch = function(key, now, argv)
    call('ZADD', key, 'LT', format('%d', now + argv[2]), argv[3])
    return 0
  end,
  claim = function(key, now, argv)
    local rooms, taken, over = {}, {}, format('%d', now + argv[3])
    for _, name in ipairs(call('ZRANGEBYSCORE', key, '-inf', format('%d', now), 'LIMIT', 0, argv[2])) do
      local room = match(name, '^!?(.*)')
      local claimed = name == room and tonumber(call('ZSCORE', key, '!' .. room))
      if claimed and claimed > now then
        -- Something is due in it again: whoever has the claim may have seen it, or not.
        call('ZADD', key, 'XX', format('%d', claimed), room)
      else
        call('ZREM', key, room)
        call('ZADD', key, over, '!' .. room)
        if not taken[room] then rooms[#rooms + 1], taken[room] = room, true end
      end
    end
    return rooms
  end,
  swept = function(key, _, argv)
    if argv[3] ~= '' then call('ZADD', key, 'LT', argv[3], argv[2]) end
    call('ZREM', key, '!' .. argv[2])
    return 0
  end,
  still = function(key, now, argv)
    call('ZADD', key, 'XX', format('%d', now + argv[3]), '!' .. argv[2])
    return 0
  end,
  enter = function(key, now, argv)
    if not call('ZSCORE', key, argv[2]) then call('ZADD', key, 'LT', format('%d', now), '!' .. argv[2]) end
    return 0
  end,
  forget = function(key, now, argv)
    local claimed = tonumber(call('ZSCORE', key, '!' .. argv[2]))
    if claimed and claimed > now then call('ZREM', key, '!' .. argv[2]) end
    return 0
  end,
  beat = function(key, now, argv)
    local me, lease, claim, former = argv[2], argv[3], argv[4], argv[6]
    local ends, state = tonumber(call('ZSCORE', key, me)), 0
    if ends then
      state = ends > now and 2 or 1
    elseif former ~= '' and not call('ZSCORE', key, '!' .. me) then
      state = 2
    end
    if former ~= '' and former ~= '-' then resign(key, now, former) end
    if state > 0 then call('ZADD', key, format('%d', now + lease), me) end
    local out = { state, server_run(now) }
    -- Who stood still itself gives the others the time to say that they live.
    if state == 2 and argv[5] == '1' then
      local over = format('%d', now + claim)
      for _, name in ipairs(call('ZRANGEBYSCORE', key, '-inf', format('%d', now), 'LIMIT', 0, MOST_DEAD)) do
        local instance = match(name, '^!(.*)')
        if not instance then
          instance = name
          call('ZREM', key, name)
        end
        call('ZADD', key, over, '!' .. instance)
        out[#out + 1] = instance
      end
    end
    return out
  end,
  live = function(key, now)
    local out = {}
    for _, name in ipairs(call('ZRANGEBYSCORE', key, '(' .. format('%d', now), '+inf')) do
      if sub(name, 1, 1) ~= '!' then out[#out + 1] = name end
    end
    return out
  end,
  mourn = function(key, now, argv)
    call('ZADD', key, 'XX', format('%d', now + argv[3]), '!' .. argv[2])
    return 0
  end,
  resign = function(key, now, argv)
    resign(key, now, argv[2])
    return 0
  end,
}

-- A function of one key: the first argument names the handler.
local function named(handlers)
  return function(keys, argv)
    if not call then bind() end
    local time = call('TIME')
    return handlers[argv[1]](keys[1], time[1] * 1000 + floor(time[2] / 1000), argv)
  end
end

redis.register_function('@NAME@_index', named(INDEX))
