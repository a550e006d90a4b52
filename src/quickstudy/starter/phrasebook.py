# ruff: noqa: E501 (a line of the grammar is a line)
"""phrasebook: what people write, made by a small grammar. Text, classes in groups that each ask one question.

Is this news or a blog post (the group genre)? A happy or an unhappy review (sentiment)? What does a customer want (the
intents of finance, travel, home, …)? The same subjects appear under both genres and both sentiments, so that the answer
lies in the way of writing and in the meaning.
"""

import re
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from quickstudy.data.dataset import DatasetInfo, make_table
from quickstudy.starter.work import Progress, generator, silent

COUNT = {"genre": 120, "sentiment": 120}
COUNT_INTENT = 48
ALIKE = 0.7  # share of common words above which two sentences are near duplicates

# {name} stands for one of a list, (a|b|) for one of the alternatives. A line is a sentence, in all its versions.
SLOTS: Mapping[str, tuple[str, ...]] = {
    name: tuple(option.strip() for option in options.split("/"))
    for name, options in {
        "polite": "please/could you/can you/i'd like you to/would you/i need you to/go ahead and/quickly//",
        "want": "i want to/i need to/i'd like to/i have to/help me/let me/is it possible to/can i/how do i/how can i",
        "day": "monday/tuesday/wednesday/thursday/friday/saturday/sunday/the 14th/may 3rd/christmas eve/the weekend",
        "Day": "Monday/on Tuesday/Wednesday/on Thursday/this week/last month/over the weekend/early in May///late in the day",
        "time": "nine in the morning/noon/half past three/six thirty/quarter to eight/ten at night/five o'clock/2 pm/8 am",
        "person": "my sister/david/the dentist/grandma/my boss/anna/the landlord/my roommate/professor lee/the plumber/omar",
        "city": "lisbon/chicago/tokyo/nairobi/oslo/montreal/dublin/delhi/sydney/denver/prague/lima/seoul/cairo",
        "City": "Lisbon/Chicago/Bergen/Nairobi/Leeds/Montreal/Dublin/Pune/Adelaide/Denver/Prague/Lima/Busan/Porto",
        "money": "forty dollars/two hundred euros/fifteen pounds/1200 dollars/the rent/85 euros/half my savings/20 bucks",
        "account": "checking account/savings account/joint account/student account/business account/current account",
        "card": "credit card/debit card/visa/bank card/mastercard/prepaid card",
        "country": "turkey/japan/brazil/spain/morocco/thailand/canada/greece/iceland/peru",
        "currency": "yen/pesos/dollars/swiss francs/euros/pounds/rupees/krona",
        "room": "kitchen/bedroom/living room/hallway/bathroom/garage/office/basement/nursery/porch",
        "event": "team meeting/yoga class/lunch with maria/parent evening/dentist visit/budget review/book club/job interview/"
        "football practice/piano lesson/video call with the client",
        "chore": "water the plants/take out the bins/call the bank/pick up the kids/pay the electricity bill/buy milk/"
        "feed the cat/send the report/renew my passport/take my vitamins/return the library books",
        "artist": "miles davis/adele/the beatles/nina simone/radiohead/bach/daft punk/fela kuti/bjork/johnny cash/chopin",
        "genre": "jazz/classical piano/heavy metal/reggae/country/hip hop/folk/salsa/disco/ambient/blues",
        "mood": "running/studying/a dinner party/a road trip/falling asleep/cooking/a rainy afternoon/working out",
        "product": "running shoes/the blue kettle/a winter coat/that desk lamp/the phone case/a tent/the coffee grinder/"
        "a pair of jeans/the board game/a blender/the baby stroller/headphones/a garden hose",
        "part": "knee/lower back/left ear/throat/stomach/shoulder/right eye/ankle/head/chest",
        "doctor": "dermatologist/family doctor/eye doctor/cardiologist/physiotherapist/pediatrician/dentist",
        "drug": "blood pressure tablets/insulin/asthma inhaler/antibiotics/allergy pills/thyroid medicine/painkillers",
        "dish": "lasagna/chicken curry/pumpkin soup/pad thai/sourdough bread/lentil stew/apple pie/fish tacos/ramen/pancakes",
        "cuisine": "thai/italian/ethiopian/sushi/mexican/lebanese/indian/vegan/korean/greek",
        "ingredient": "buttermilk/eggs/coconut milk/flour/fresh basil/heavy cream/soy sauce/yeast/brown sugar/parmesan",
        "app": "photo editor/spreadsheet program/banking app/video player/email client/browser/antivirus/game launcher",
        "device": "laptop/tablet/phone/desktop computer/work computer/new macbook/old pc",
        "site": "my email/the company portal/my online account/the school website/the streaming service/my cloud drive",
        "vehicle": "car/van/motorcycle/pickup/hatchback/old station wagon/electric car",
        # news and blogs, about the same subjects
        "Body": "The city council/The regional government/The transport ministry/The school board/The water authority/"
        "The national museum/The state university/The port authority/The health department/The football federation",
        "Firm": "Halden Motors/Brightwater Foods/Norvik Energy/the airline Aerolux/Tessel Software/Kestrel Bank/"
        "the retailer Marlow & Finch/Calder Steel/Orchard Telecom/the drugmaker Velis",
        "Leader": "Mayor Elena Ruiz/Finance Minister Paul Okafor/chief executive Dana Whitlock/spokesman Henrik Olsen/"
        "Governor Lena Marsh/coach Tomas Varga/lead researcher Priya Nair/police chief Marcus Bell",
        "percent": "3.2 percent/12 percent/nearly a fifth/7 percent/more than a third/0.4 percent/18 percent",
        "sum": "$4.5 million/$120 million/2.3 billion euros/$900,000/75 million pounds/$38 million",
        "number": "42/more than 300/about 1,200/17/an estimated 5,000/nearly 80/some 650",
        "disaster": "a warehouse fire/severe flooding/a landslide/a power failure/a derailed freight train/a gas leak/"
        "heavy snowfall/a collapsed roof/wildfires near the valley/a chemical spill",
        "Project": "a new tram line/the harbour bridge/a solar farm/a housing development/the stadium renovation/"
        "a children's hospital/an offshore wind park/the airport's third runway/a flood barrier/a recycling plant",
        "crop": "wheat/coffee/olive/apple/rice/tomato/cocoa",
        "hobby": "sourdough/knitting/film photography/trail running/woodworking/urban gardening/watercolour/birdwatching/"
        "vintage keyboards/bouldering/beekeeping/learning Portuguese/home brewing/cycling to work",
        "thing": "my old bicycle/a second-hand camera/the tomato plants/our tiny kitchen/the spare room/my grandmother's recipe box/"
        "a leaky tent/my first marathon/a broken espresso machine/the kids' treehouse/a stack of unread novels",
        "lesson": "slow down/ask for help sooner/write things down/buy less stuff/trust the process/take more naps/"
        "leave the phone at home/start before feeling ready/accept a bit of mess",
        "trip": "a weekend in Lisbon/our road trip through Scotland/three rainy days in Bergen/the night train to Vienna/"
        "hiking around the lake/a camping disaster in Wales/my first solo trip to Japan",
        "feeling": "oddly proud/a little embarrassed/completely hooked/exhausted but happy/strangely calm/way too excited/"
        "a bit lost/grateful/pretty torn",
        # reviews
        "Thing": "It/It/It/Everything/Everything here/The whole thing/The service/The result/This headset/The hotel/This novel/"
        "The restaurant/The film/This jacket/The app/The mattress/The game",
        "good": "wonderful/superb/fantastic/excellent/delightful/brilliant/charming/beautiful/amazing/lovely/outstanding/terrific/"
        "marvellous/splendid/great/perfect/enjoyable/impressive/magnificent/first-rate",
        "bad": "awful/terrible/dreadful/horrible/useless/annoying/ugly/disappointing/appalling/shoddy/pathetic/miserable/faulty/"
        "disgusting/poor/unbearable/lousy/frustrating/dismal/third-rate",
        "glad": "I love it!/Highly recommended!/We are delighted./So happy with it!/It makes me smile./I would gladly buy it again./"
        "Thank you so much!/Everyone should try it./I can't praise it enough./Worth every cent.",
        "upset": "I hate it!/Stay far away!/We are furious./So angry about it!/It makes me want to scream./I want my money back./"
        "Never again!/Nobody should put up with it./I regret it deeply./Not worth a cent.",
        "friend": "my wife/a colleague/my brother/the whole family/our neighbour/my best friend/my daughter",
        "span": "two weeks/a month/half a year/three days/a year/one long weekend/six months",
    }.items()
}

GRAMMAR = """
[finance/balance]
(what is|what's|tell me|show me|check) (the balance of|how much is in) my {account}
how much money (do i have|is left|have i got) in (my {account}|the bank|all my accounts)
{want} (see|check) (my available funds|what is left in my {account}) (before {day}|)
do i have enough in my {account} to (pay {money}|cover {money}|buy {product})
(is|has) my {account} (overdrawn|below 100 dollars|in the red) (right now|)
{polite} read out my (current|latest) account balance
am i able to afford {money} with what's in my {account}
[finance/transfer]
{polite} (transfer|move|send|wire) {money} (from my {account}|) to {person}
{want} (send|wire|transfer) {money} to (an account abroad|{person}|my {account})
(move|shift) {money} from my {account} (over to|into) my {account}
i owe {person} {money}, (pay it from my {account}|send it {day})
set up a (monthly|weekly) payment of {money} to {person}
make a transfer of {money} between my accounts (on {day}|)
can you pay {person} back {money} (today|by {day})
[finance/lost card]
i (lost|can't find|misplaced) my {card} (in {city}|at the gym|on the train|somewhere {day}|)
(someone|a thief) (stole|took) my (wallet|purse|bag) with my {card} in it
my {card} (was stolen|has gone missing|fell out of my pocket) (in {city}|last night|), (block it|freeze it|what now)
{polite} (block|freeze|deactivate) my {card} (immediately|right away|before anyone uses it)
{want} report a (missing|stolen|lost) {card}
i left my {card} (in a taxi|in the cash machine|in {city}) and need a replacement
[finance/exchange rate]
(what is|what's) the exchange rate (for|of) {currency} (today|)
how many {currency} (do i get|will i get|are there) for {money}
(convert|change) {money} (into|to) {currency}
is the {currency} (stronger|weaker|up|down) against the {currency} (this week|today)
what would {money} be in {currency}
{want} know the rate between {currency} and {currency}
is now a good moment to (buy|change my money to) {currency} (for my trip to {country}|)
[finance/disputed charge]
(there is|i see|why is there) a (charge|payment|transaction) of {money} (on my {card}|) i (don't recognize|never made)
i was (charged|billed) twice (for {product}|by the same shop|for one dinner) (on my {card}|)
{want} dispute (a charge|a payment) (on my {card}|from {day}|of {money})
this (transaction|payment) from {city} (isn't mine|looks like fraud|was not me)
why did (the hotel|a shop in {city}|some website) take {money} (from my {account}|off my {card})
my statement shows a purchase of {product} that i never (made|ordered)
[finance/loan]
{want} (apply for|get|take out) a (loan|mortgage|line of credit) (to buy a {vehicle}|for a house|for my studies|of {money})
what (interest|rate) would i pay on a (mortgage|{vehicle} loan|personal loan)
(do i qualify|am i eligible) for a (mortgage|home loan|student loan|bigger credit line)
how (long|many years) would it take to pay off (my mortgage|a loan of {money}|the {vehicle} loan)
could i borrow {money} (for a new {vehicle}|to renovate the {room}|until {day})
(explain|walk me through) the (paperwork|steps) for a (mortgage|car loan|business loan)
[travel/book flight]
{polite} (book|find|get me) a (cheap|direct|one way|round trip|business class|) flight (from {city}|) to {city} (on {day}|for {day}|)
{want} fly (from {city}|) to {city} (before {day}|in march|with two kids|)
are there (any|still) (seats|flights|tickets) to {city} (leaving {day}|around {time}|)
what does a plane ticket to {city} cost (these days|in august|)
reserve two (window|aisle) seats to {city} (for {person} and me|leaving {day})
search for airlines that go from {city} to {city} (without a stop|overnight)
[travel/cancel booking]
{polite} cancel my (flight|trip|reservation|booking|hotel|train) (to {city}|in {city}|for {day}|)
{want} (call off|cancel) (my journey|the trip|the booking) (to {city}|) and get a refund
we (won't|can't) (make it|go) to {city}, (drop the reservation|please cancel everything)
something came up, (undo|cancel|scrap) the (flight|hotel) (for {day}|in {city})
do i get my money back if i cancel (the hotel in {city}|my flight|the tour)
(get rid of|withdraw) my reservation (under the name okafor|in {city}|for {day})
[travel/baggage]
(how many|how heavy can my) (bags|suitcases) (can i bring|be) (on the flight|to {city}|)
my (suitcase|luggage|bag) (never arrived|got lost|was damaged|did not come out) (in {city}|on the way to {city}|)
(is|am i allowed to take) (a guitar|a stroller|skis|a surfboard|shampoo) (in|as) (hand luggage|a carry on)
what (is|are) the (weight limit|size limit|fees) for (checked bags|a carry on|extra luggage)
{want} add (another|an extra) (bag|suitcase) to my flight
where do i (collect|report) my (missing|delayed) luggage (in {city}|)
[travel/hotel]
(find|show|book) me a (hotel|hostel|guest house|room) (in {city}|near the beach in {city}|close to the station) (for {day}|under {money}|)
{want} stay (three|two|five) nights in {city} (with a pool|with breakfast|near the centre)
(which|what) hotels in {city} (allow dogs|have a gym|are good for families|have free parking)
is there a (quiet|cheap|romantic) place to sleep in {city}
reserve a double room (in {city}|) (from {day}|starting {day}) with a (sea view|balcony|crib)
how much is a night in a (nice|four star) hotel in {city}
[travel/delay]
is (my flight|the train|the bus|flight 482) (to {city}|from {city}) (late|delayed|on time|still leaving {day})
(when|what time) does (the plane|the train|my connection) from {city} (land|arrive|get in)
has (the flight|the ferry|my train) to {city} (departed|been cancelled|boarded) (yet|)
which gate does the (flight|plane) to {city} leave from
{person} is arriving from {city}, (check whether the plane is on schedule|is the flight late)
will i miss my connection in {city} (if we leave at {time}|because of the delay)
[travel/visa]
do i need a (visa|vaccination|special permit) (to enter|for|to visit) {country}
(what|which) (documents|papers) do (i|we|children) need (for|to travel to) {country}
how long can i stay in {country} without a visa
{want} (apply for|extend|renew) a (tourist|work|student) visa for {country}
is my passport (still valid enough|okay) to (enter|visit) {country}
where is the (embassy|consulate) of {country} (in {city}|)
[home/lights]
{polite} (turn|switch) (on|off) the (lights|lamp|light) in the {room}
(dim|brighten) the {room} (lights|lamp) (to thirty percent|a little|for movie night)
it's too (dark|bright) in the {room}
make the {room} light (blue|warmer|softer|brighter)
did i leave the {room} (lights|lamp) on
(all|no) lights (on|off) (downstairs|in the {room}|when i leave)
[home/thermostat]
{polite} (set|turn|put) the (heating|thermostat|temperature) (to|at) (19|21|68|72|25) (degrees|)
(i'm|we're|the baby is) (freezing|too hot|cold|sweating) in the {room}
(raise|lower|increase) the (temperature|heat) in the {room} (by two degrees|a bit|before {time})
how warm is it in the {room} (right now|)
(start|stop) the (air conditioning|radiator|heating) (at {time}|in the {room}|)
keep the {room} (cool|warm) (overnight|until {time})
[home/vacuum]
{polite} (vacuum|sweep|clean) the {room} (floor|carpet|) (at {time}|while i'm out|)
(start|send|stop|pause) the (robot vacuum|vacuum cleaner|hoover) (in the {room}|)
there are crumbs (all over|on the floor of) the {room}
tell the (robot|vacuum) to (go back to its dock|skip the {room}|do the {room} twice)
is the (dust bin|bag) of the (vacuum|hoover) full
when was the {room} last (vacuumed|swept)
[home/locks]
(is|did i leave) the (front door|back door|garage|gate) (locked|unlocked|open)
{polite} (lock|unlock|bolt) the (front door|back door|garage door|gate) (at {time}|for {person}|behind me|)
let {person} in (through the {room} door|at {time})
(lock up|secure) the (house|whole place) (for the night|before {time})
who (opened|unlocked) the (garage|front door|gate) (at {time}|last night)
give {person} a code for the (front door|gate) (until {day}|)
[home/laundry]
{polite} (start|stop|run) the (washing machine|dryer|laundry) (on a gentle cycle|at {time}|with an extra rinse|)
how long (until|before) the (wash|laundry|dryer) is (done|finished)
(is|has) the washing (done|finished|ready to hang) (yet|)
wash the (towels|wool sweaters|jeans|bed sheets) at (sixty|thirty) degrees
tell me when the (dryer|spin cycle) (stops|ends)
add (fabric softener|a prewash) to the load (at {time}|)
[home/security camera]
show me the camera (in the {room}|at the front door|in the driveway)
(is|was) (anyone|somebody) (at the door|in the {room}|in the yard) (at {time}|last night|)
{polite} (arm|disarm|switch on) the (alarm|burglar alarm|motion sensor) (in the {room}|at {time}|)
the motion detector in the {room} (keeps going off|sent an alert)
(save|play back) the (footage|recording) from (the {room}|the porch camera) (at {time}|)
who rang the doorbell (at {time}|while i was away)
[calendar/add event]
{polite} (add|put|schedule) (a|my|the) {event} (on|to) my calendar (for {day}|at {time}|)
(i have|there's) a {event} (on {day}|) at {time}, (note it|write it down|put it in)
{want} (plan|schedule|set up) a {event} (for {day}|with {person})
(block|reserve) (two hours|the morning|{time}) (on|for) {day} for (a|the) {event}
create an event called {event} (at {time}|on {day})
[calendar/move event]
{polite} (move|push|shift|reschedule) (my|the) {event} (to|until) ({day}|{time})
my {event} (is now|has been moved) (at {time}|to {day}), (update it|change the calendar)
(can we|i'd rather) have the {event} (later|earlier|on {day}) (instead|)
swap the {event} with the {event}
postpone (everything|the {event}) (by an hour|until {day})
i can't make the {event}, find (another|a different) slot (on {day}|)
[calendar/reminder]
{polite} remind me to {chore} (at {time}|on {day}|when i get home|)
don't let me forget to {chore} (on {day}|)
(set|make|give me) a reminder (for {day}|at {time}|) to {chore}
i (have|need) to {chore} (by {day}|), (ping me|nudge me|tell me again) (at {time}|an hour before)
what was i supposed to remember (about {person}|on {day}|at {time})
[calendar/free time]
(am i|is {person}) (free|busy|available) (on {day}|at {time}|for lunch)
(when|which day) (do i have|is there) (a gap|an open slot|time) (for {event}|this month|)
what (does|is on) my (schedule|agenda|calendar) (look like on {day}|for {day})
do i have anything (planned|going on) (on {day}|around {time})
how many (meetings|appointments) do i have (before {time}|on {day})
read me (everything|the plan) for {day}
[calendar/alarm]
{polite} (set|put on) an alarm for {time} (on {day}|)
wake me up (at {time}|in twenty minutes|early on {day})
(snooze|stop|turn off) the alarm (for ten minutes|until {time}|)
(change|move) my wake up (call|time) to {time}
what time (does|will) my alarm (go off|ring) (on {day}|tomorrow)
let it ring (five minutes later|every weekday) (at {time}|)
[calendar/birthdays]
when is {person}'s birthday
whose birthday is it (on {day}|this month)
how old (will|is) {person} (turn|turning) (this year|on {day})
save {person}'s (birthday|anniversary) as the (3rd of may|twelfth of june|last day of october)
how many days (are left until|till) (my anniversary|{person}'s birthday|christmas)
did i miss {person}'s (birthday|anniversary)
[music/play]
{polite} (play|put on|start) (something by|some|the latest album of) {artist}
(i feel like|let's hear|i'm in the mood for) (some|a bit of) {genre}
play (some|) {genre} (for {mood}|in the {room})
put on (music|something) (good|nice|calm) for {mood}
(start|shuffle) my {genre} (playlist|collection) (in the {room}|)
i want to (listen to|hear) {artist} (while {mood}|)
[music/volume]
(turn|crank) (it|the music|the {room} speaker) (up|down) (a bit|a lot|)
{polite} (mute|lower|raise) the (volume|sound|speakers) (in the {room}|)
(that's|this is) (too loud|too quiet) for {mood}
set the volume to (three|seven|forty percent|the maximum)
i can (barely|hardly) hear the (song|speaker) in the {room}
more (bass|treble) on the {room} speaker
[music/playlist]
(add|save) this (song|track|album) to my ({genre}|running|favourites|party) playlist
{polite} (make|create) a playlist (for {mood}|of {genre}|with {artist} and {artist})
(remove|delete) {artist} from my (playlist|library)
(rename|share|sort) my {genre} playlist (with {person}|)
which songs are on my (list for {mood}|{genre} playlist)
put (three|ten) {artist} songs (on|into) the playlist for {mood}
[music/identify]
(what|which) song is (this|playing) (in the {room}|)
who (sings|wrote|recorded) (this|this {genre} song|that tune)
what's the (name|title) of (this track|the {genre} piece that is on)
is this (by {artist}|{artist} or {artist})
which album (is this from|by {artist} is this on)
i hear a melody in the {room}, (name it|what could it be)
[music/skip]
{polite} (skip|next|pass on) (this one|song|track|)
(go back to|replay) the (previous|last) (song|track)
i (don't like|hate|am tired of) this (song|{genre} stuff), (skip it|next one)
(not|no more) {artist} (again|today), (play the next song|skip)
(jump|fast forward) to the (chorus|last song|third track)
repeat this (song|track) (one more time|forever)
[music/concert]
when (is|does) {artist} (playing|play) (in {city}|near me|this summer)
(are there|can i get) tickets for (the {artist} show|{artist} in {city}|a {genre} festival)
(any|which) {genre} (concerts|gigs|festivals) (in {city}|on {day}|around here)
how much are (tickets|seats) for {artist} (in {city}|on {day})
who is (the opening act for|on tour with) {artist}
buy two tickets to see {artist} live (in {city}|)
[shopping/track order]
where is my (order|package|parcel) (with {product}|) (right now|)
(has|when will) (my order|{product}) (shipped|arrive|been sent) (yet|)
i (expected|should have had) {product} (on {day}|last week)
{want} track (a package|my delivery|the shipment) (from last week|with {product})
the (courier|driver) says delivered but {product} never (came|showed up)
will (the parcel|my delivery) (be here|come) by {day}
[shopping/return]
{want} (return|send back|exchange) {product} (i bought|)
i got {product} (in the wrong size|broken|two sizes too small|in the wrong colour), (i want my money back|can i send it back)
(what is|explain) the return policy for {product}
how (long|many days) do i have to (return|bring back) {product}
print me a return label for {product}
i (changed my mind about|no longer need) {product}, refund me
[shopping/availability]
do you have {product} in (stock|blue|size 42|a larger size)
when will you have {product} back in stock
can i (get|buy) {product} in (the shop in {city}|your store|other colours)
which shops (near me|in {city}) (carry|sell) {product}
(are there|have you) any more of {product}
let me know once i can order {product} again
[shopping/discount]
(is there|do you have) a (discount|coupon|voucher|promo code) for {product}
my (coupon|gift card|voucher) (isn't working|was not accepted) (for {product}|at checkout)
{want} (use|redeem) (a gift card|two coupons|my loyalty points) (on {product}|)
when does the (sale|offer|promotion) on {product} (start|end)
can students get (a better price|ten percent off) on {product}
can i get {product} cheaper (on black friday|after christmas|{day})
[shopping/change address]
{want} (change|correct|update) the (delivery|shipping) address (of my order|for {product})
i (moved|am moving) to {city}, (send my order there|where do i update my address)
(ship|deliver|send) {product} to (my office|{person}|my new flat) instead
the address on my (order|parcel) (is wrong|has a typo|misses the apartment number)
can the courier leave {product} (with a neighbour|at the post office|at {person}'s house)
redirect the package to (a pickup point|{city}|my work)
[shopping/compare products]
(what is|which is) (better|cheaper|sturdier), {product} or {product}
(read|show) me the reviews (of|for) {product}
would you pay {money} for {product}
recommend {product} (under {money}|as a gift for {person}|for beginners)
what do (people|customers) (say|think) about {product}
compare {product} with (the cheaper one|last year's model|what amazon sells)
[health/appointment]
{want} (see|get an appointment with) (a|the) {doctor} (on {day}|at {time}|as soon as possible)
{polite} (book|make|schedule) (an appointment|a checkup) with (a|the) {doctor} (for {person}|on {day})
(does|when does) the {doctor} have (an opening|any free slots) (on {day}|)
move my visit to the {doctor} (to {day}|to {time})
is there a {doctor} (in {city}|near me) who takes new patients
[health/symptoms]
my {part} (hurts|aches|is swollen|has been sore) (since {day}|when i walk|after running|)
(i have|i've got|my son has) (a fever|a rash|a bad cough|blurry vision|chills) (and a sore {part}|since {day}|)
(why|what does it mean when) (does my {part} hurt|my {part} tingles) (at night|after eating|)
i feel (dizzy|sick|faint|weak) (every morning|after lunch|when i stand up)
should i worry about (the pain in my {part}|a lump near my {part})
there is a (sharp|dull|burning) pain in my {part} (since {day}|)
[health/prescription]
{want} (refill|renew|pick up) (my|a prescription for) {drug}
(is|are) my {drug} ready at the pharmacy (in {city}|)
i (ran out of|am almost out of|lost) my {drug}
can the {doctor} prescribe {drug} (for another month|)
which pharmacy (near me|in {city}) (has|sells) {drug}
send my prescription for {drug} to (the pharmacy|{city}|a different drugstore)
[health/dosage]
how (many|much|often) (of my|of the) {drug} (should i take|a day)
(can|may) i take {drug} (with alcohol|on an empty stomach|while pregnant|together with {drug})
i (forgot|skipped) a dose of {drug}, (what now|should i double it)
what are the side effects of (the|) {drug}
is it (safe|okay) to give {drug} to (a child|an old dog|someone over eighty)
do {drug} (make you sleepy|interact with grapefruit|expire)
[health/insurance]
does my insurance (cover|pay for) (a {doctor}|{drug}|surgery on my {part}|new glasses)
(what is|how high is) my (deductible|copay|yearly limit) (for a {doctor}|)
{want} (file|submit|check) a claim for (the {doctor}|my {drug}|an x-ray of my {part})
(add|put) {person} (to|on) my health plan
why was my claim for (the {doctor}|{drug}) (rejected|not paid)
is the {doctor} in {city} in my network
[health/fitness]
how many (steps|calories|kilometres) did i (do|burn|walk) (on {day}|today|)
(log|record) a (five kilometre run|swim|bike ride|weights session) (for {day}|at {time}|)
(show me|suggest) (an exercise|stretches|a workout) for (my {part}|beginners|a strong core)
what was my (heart rate|average pace|best time) (on {day}|during the run)
start a (yoga|running|rowing) workout (in the {room}|at {time}|)
help me (train for a marathon|lose five kilos|build muscle) (by summer|)
[computers/password]
i (forgot|can't remember|lost) (the|my) password (for|to) {site}
{want} (reset|change) my (password|pin|login) (for {site}|)
{site} (says|keeps telling me) my password is wrong
i'm locked out of {site} (after three tries|on my {device}|)
the (reset link|verification code) for {site} (never arrives|has expired|doesn't work)
where do i turn on two step login for {site}
[computers/internet]
the (wifi|internet|connection) is (down|slow|unstable|dropping out) (in the {room}|on my {device}|since {day})
my {device} (won't|can't|refuses to) (connect to|find) the (wifi|network|router)
(restart|reboot|check) the (router|modem) (in the {room}|)
why is (my download|streaming|the internet) so slow (on my {device}|in the evening|)
pages (time out|won't load) on my {device}
how do i (extend|boost) the signal (to the {room}|in the {room})
[computers/install]
how do i (install|set up|download) the {app} on my {device}
the {app} (won't install|stops installing at ninety percent|needs more disk space) on my {device}
{want} (upgrade|update) the {app} (to the latest version|on my {device})
(does|will) the {app} (run|work) on (my {device}|linux|windows)
remove the {app} from my {device} (completely|)
where do i enter the license key for the {app}
[computers/printer]
the printer (won't print|is offline|is jammed|prints blank pages|leaves streaks) (in the {room}|since {day}|)
{want} (connect|set up|pair) (the|a new) printer (with|to) my {device}
how do i (scan|print|copy) (on both sides|a photo|in colour|from my {device})
(the toner|the ink cartridge) (is empty|needs changing|leaks)
my {device} doesn't (see|find) the printer (in the {room}|)
paper gets stuck (in the tray|every time i print)
[computers/crash]
the {app} (crashes|freezes|closes) (when i open a file|every few minutes|at startup) (on my {device}|)
my {device} (shows a blue screen|keeps restarting|froze|won't start) (after the update|since {day}|)
i (lost|can't recover) my work when the {app} (crashed|hung)
an error (pops up|appears) (whenever|each time) i (launch|close) the {app}
(why does|what makes) the {app} hang on my {device}
my {device} gets (hot|slow) and then (shuts down|dies)
[cooking/recipe]
(how do i|how do you|teach me to) (make|cook|bake) {dish}
(find|give|show) me a (simple|quick|good|vegetarian) recipe for {dish}
what (goes into|do i need for) {dish}
what can i (cook|make) with {ingredient} and {ingredient}
how long does {dish} (cook|stay in the oven|simmer)
walk me through {dish} (step by step|)
[cooking/reservation]
{polite} (book|reserve|get) a table (for two|for six|outside) (at {time}|on {day}) (at the {cuisine} place|)
(is there|does the {cuisine} restaurant have) a (free|) table (on {day}|at {time})
{want} (change|cancel) my dinner reservation (for {day}|at {time})
can the {cuisine} restaurant (seat|take) (eight|twelve) (people|guests) (on {day}|)
make us a reservation somewhere {cuisine} (in {city}|for {day})
[cooking/takeaway]
{polite} order (some|) {cuisine} food (to the office|for {time}|for four people)
i'm hungry, (get|bring) me {dish} (from the {cuisine} place|)
how long (will|does) the {cuisine} delivery take
(add|put) (extra rice|two cokes|{dish}) (to|on) my (takeaway|food delivery) order
which {cuisine} places deliver (to {city}|at this hour)
have {dish} delivered (to {person}|at {time})
[cooking/substitute]
what can i use instead of {ingredient} (in {dish}|)
i'm out of {ingredient}, (will {ingredient} do|what else works)
(is there|name) a (vegan|cheaper|gluten free) (substitute|replacement) for {ingredient}
can i (swap|replace) {ingredient} (with|by) {ingredient} (in {dish}|)
does {dish} (work|taste right) without {ingredient}
[cooking/nutrition]
how many calories (are in|does) {dish} (have|)
is {dish} (healthy|fattening|high in protein|gluten free)
(how much|is there a lot of) (sugar|salt|fat|protein) in {ingredient}
which has more (fibre|iron|vitamin c), {dish} or {dish}
can (diabetics|someone on a diet|people with a nut allergy) eat {dish}
(what vitamins|which allergens) are in {ingredient}
[cooking/shopping list]
(add|put) {ingredient} (and {ingredient}|) to (the|my) (shopping|grocery) list
(remove|cross off) {ingredient} from the (list|groceries)
what('s| is) (still|) on the (shopping|grocery) list (for {day}|)
we('re| are) (out of|running low on) {ingredient}, (write it down|add it)
put everything for {dish} on the grocery list
do we (still|) have {ingredient} (at home|in the fridge)
[driving/navigate]
(take|guide|navigate) me to (the nearest gas station|{person}'s house|the airport|downtown {city})
(what is|find) the (fastest|shortest|scenic) (way|route) (to {city}|home|to the stadium) (without tolls|)
how do i get to (the hospital|{city}|the museum) (from here|by {vehicle})
(how far|how long a drive) is it to {city}
avoid (motorways|tolls|the tunnel) on the way to {city}
[driving/traffic]
(how is|what's) the traffic (to {city}|on the way home|on the ring road|downtown)
(is there|do you see) (an accident|construction|congestion|a jam) (on the highway|on the bridge|near {city})
will i be stuck in traffic (at {time}|on {day}|near {city})
when should i leave to (reach|be in) {city} by {time}
is the (bridge|mountain pass|tunnel) to {city} (open|closed) (today|)
[driving/parking]
where can i park (near {city} station|the {vehicle}|downtown|at the stadium)
(find|reserve) a (parking space|garage|free parking spot) (in {city}|near the theatre|for the {vehicle})
how much (is|does) parking (cost|) (in {city}|at the airport) (per hour|overnight)
(where|on which level) did i leave the {vehicle}
(extend|pay for) my parking (until {time}|by another hour|)
[driving/repair]
my {vehicle} (makes a strange noise|won't start|leaks oil|pulls to the left|smells burnt)
the (engine|brake|oil|tire pressure) light (is on|is blinking) (in my {vehicle}|)
{want} (book|schedule) (a service|an oil change|an inspection) for my {vehicle} (on {day}|)
(how often|when) should i (change the oil|rotate the tires|replace the brakes) (on|of) my {vehicle}
i have a flat tire (near {city}|on the highway), (send help|what do i do)
what would (new brakes|a clutch|a windshield) for my {vehicle} cost
[driving/rent]
{want} rent a {vehicle} (in {city}|from {day}|for a week)
what does it cost to (hire|rent) a {vehicle} (for {day}|in {city}|with insurance)
(can|may) {person} also drive the rental {vehicle}
where do i (return|pick up|drop off) the rental {vehicle} (in {city}|)
(is|are) (a child seat|winter tires|full insurance) included with the (rental|hired {vehicle})
do i need an international licence to rent a {vehicle} in {country}
[genre/news]
{Body} (voted on|approved) {Day} (a {sum} plan for|the construction of) {Project}, (ending months of debate|despite objections from residents|officials said).
{Firm} (said|announced|reported) {Day} (that|) quarterly (profit|revenue) (rose|fell) {percent}, (beating|missing) analysts' expectations.
(Firefighters|Emergency crews|Rescue teams) (battled|responded to) {disaster} (near|outside|in) {City} {Day}, forcing (the evacuation of|authorities to move) {number} (residents|people).
{number} people were (injured|displaced) after {disaster} (hit|struck) {City} {Day}, according to (police|local officials|the fire service).
{Leader} (rejected|defended|welcomed) (calls to halt|criticism of|the decision to fund) {Project} at a (news conference|hearing) in {City}.
Shares of {Firm} (dropped|climbed|slid) {percent} {Day} after (regulators opened an investigation|the company cut its forecast|a rival announced a takeover bid).
(Researchers|Scientists) at the University of {City} (have found|report) that {crop} yields could (fall|drop) by {percent} (by 2040|within two decades) (as temperatures rise|without irrigation).
{City} (beat|defeated|held) {City} (2-1|3-0|to a goalless draw) {Day}, (moving|climbing) (to the top of the table|into third place|out of the relegation zone).
(Voters|Residents) in {City} (go to the polls|will decide) {Day} (on|in a referendum on) {Project}, (with turnout expected to be low|the first vote of its kind since 1998).
Unemployment in the {City} region (rose|fell) to {percent} last month, the statistics office (said|reported) {Day}, as {Firm} (cut|added) {number} jobs.
(Police|Prosecutors) in {City} (arrested|charged|questioned) (a former manager of {Firm}|two men|a suspect) {Day} (over|in connection with) {disaster}.
{Body} will (raise|lower) (fees|fares|taxes) by {percent} (from January|next spring) to (pay for|finance) {Project}, {Leader} (said|told reporters) {Day}.
The opening of {Project} has been (delayed|postponed) (until next autumn|by two years) (because of rising costs|after inspectors found faults), {Body} confirmed.
Workers at {Firm} (walked off the job|began a strike) {Day} after talks (over pay|on shift hours) (collapsed|broke down), (affecting|stranding) {number} customers.
A court in {City} (ordered|fined) {Firm} (to pay|a total of) {sum} (in damages|) (over|following) {disaster} (last year|two years ago).
Heavy (rain|winds) (closed|shut) (roads|schools) around {City} {Day}; forecasters (expect|warned of) further storms (through the weekend|overnight).
(Exports of|Prices for) {crop} (reached a record|slumped by {percent}) in the third quarter, (trade figures|customs data) showed {Day}.
A (sourdough|knitting|cycling|beekeeping|photography) festival drew {number} visitors to {City} {Day}, (organisers|police) said, up {percent} from last year.
[genre/blog]
So I finally (tackled|gave in and fixed|got around to) {thing} (last weekend|on Saturday), and (honestly|let me tell you), I'm {feeling}.
(A few|Three|Five) things I (learned|wish I'd known) about {hobby} (this year|after a month of trying): (mostly|above all), {lesson}.
(Okay|Right), confession time: I (spent|wasted) (an entire Sunday|way too much money) on {hobby} and I (regret nothing|would do it again).
(You know that feeling|Ever have one of those days) when {hobby} just clicks? (That was me|Yep, me) (yesterday|this morning), and I'm still {feeling}.
(Today I want to talk|Let's talk) about {trip}, because (so many of you asked|I promised photos), and (it did not go as planned|wow).
(Hi everyone|Hello friends), sorry for the long silence here; (life|work|{thing}) got (in the way|a bit much), but {hobby} (pulled me back|kept me sane).
(My take|Unpopular opinion): {hobby} is (better|more fun) when you (stop measuring it|do it badly) and {lesson}.
I (used to think|always assumed) {hobby} was (for retired people|not for me), until {thing} (changed my mind|proved me wrong).
(Here's|This is) how we (turned|rescued) {thing} (in one afternoon|on a tiny budget), (mistakes and all|with far too much coffee).
{trip} taught me to {lesson}, which (sounds cheesy|my mother has told me for years), but there you go.
(Some mornings|On grey days) I (look at|think about) {thing} and feel {feeling}; (does anyone else|tell me I'm not the only one).
If you're new to {hobby}, (do yourself a favour|my two cents): {lesson} and (ignore the gear forums|don't compare yourself to strangers online).
We're back from {trip} and my (feet hurt|heart is full|laundry pile is scary), so (here is the whole story|grab a cup of tea).
(Drop a comment|Let me know below) if you've (tried|ever struggled with) {hobby} too, because (I could use the advice|I'd love to hear your stories).
Our mayor wants {Project} and I have (thoughts|mixed feelings): (I get the point|fine), but (my street|the park where I jog) will never be the same.
Everyone keeps (sharing|talking about) the news of {disaster}, and I just (sat there|hugged my kids) feeling {feeling}.
I tried {Firm} so you don't have to, (and here's my very biased verdict|spoiler: {lesson}).
(Month two|Day ten|Week one) of {hobby}: {thing} is (a mess|winning), I am {feeling}, (send snacks|and yet).
[sentiment/positive]
{Thing} exceeded (all my expectations|everything i hoped for), and {friend} (loves it|adores it) too. {glad}
(I've had this for {span} and it|After {span} it) still (delights me|makes me smile|feels like a treat). {glad}
{Thing} is {good} and {good}, an absolute (joy|pleasure|delight) from (start to finish|the first minute).
(Best purchase|Best decision) I've made in {span}; {Thing} is {good} and the quality is {good}.
(Friendly|Helpful|Lovely) staff, (quick answers|fast delivery), and {Thing} was {good}. {glad}
I was sceptical at first, but {Thing} (won me over completely|turned out to be {good}). {glad}
(Not a single problem|No complaints at all) in {span}; {Thing} is {good} and (built to last|worth every penny).
{friend} gave me this as a present, and I (couldn't be happier|am in love with it|enjoy it every day): {good}, {good} and {good}.
(Five stars|Top marks) for {Thing}: {good}, {good} and great value. {glad}
Would I choose it again? (In a heartbeat|Absolutely)! {Thing} is {good} and (makes life easier|a real treat).
{Thing} (impressed|thrilled|charmed) {friend} so much that we came back for more. {glad}
(Thank you|Bravo) to the people behind this, it is {good} in every detail. {glad}
(What a|Such a) (pleasant|happy|lovely) surprise, {Thing} is {good}, a real gem for so little money.
{glad} {Thing} is {good}, and after {span} {friend} and I (love|like|enjoy) it more than ever.
[sentiment/negative]
{Thing} fell short of (all my expectations|everything i hoped for), and {friend} (hates it|can't stand it) too. {upset}
(I've had this for {span} and it|After {span} it) already (broke|fell apart|drives me mad). {upset}
{Thing} is {bad} and {bad}, a complete (waste of money|nightmare|failure) from (start to finish|the first minute).
(Worst purchase|Worst decision) I've made in {span}; {Thing} is {bad} and the quality is {bad}.
(Rude|Unhelpful|Arrogant) staff, (no answers|late delivery), and {Thing} was {bad}. {upset}
I had high hopes at first, but {Thing} (let me down completely|turned out to be {bad}). {upset}
(One problem after another|Endless defects) in {span}; {Thing} is {bad} and (badly made|a rip-off).
{friend} gave me this as a present, and I (am so disappointed|cannot bear it|suffer every day): {bad}, {bad} and {bad}.
(One star|Zero stars) for {Thing}: {bad}, {bad} and overpriced. {upset}
Would I choose it again? (Not a chance|Never)! {Thing} is {bad} and (makes life harder|a real letdown).
{Thing} (frustrated|angered|disgusted) {friend} so much that we demanded a refund. {upset}
(Shame on|No thanks to) the people behind this, it is {bad} in every detail. {upset}
(What a|Such a) (nasty|bitter|sad) disappointment, {Thing} is {bad}, pure junk for so much money.
{upset} {Thing} is {bad}, and after {span} {friend} and I (hate|resent|dislike) it more than ever.
"""


def build(progress: Progress = silent, limit: int | None = None) -> tuple[DatasetInfo, pa.Table]:
    """Write the dataset.

    Args:
        progress: told (done, total) in classes.
        limit: sentences a class, for tests; None for all.
    """
    grammar = _grammar()
    texts: list[str] = []
    classes: list[str] = []
    groups: list[str] = []
    for done, (label, lines) in enumerate(grammar.items(), 1):
        group = label.split("/")[0]
        own = _sentences(label, lines, COUNT.get(group, COUNT_INTENT))[:limit]
        texts += own
        classes += [label] * len(own)
        groups += [group] * len(own)
        progress(done, len(grammar))
    info = DatasetInfo(
        name="phrasebook",
        modality="text",
        description="Sentences from a small grammar: news and blog posts, happy and unhappy reviews, and "
        f"{len(grammar) - 4} intents of {len(set(groups)) - 2} kinds of customers' requests.",
        licence="Apache-2.0 (part of quickstudy)",
        source="quickstudy.starter.phrasebook",
        group="question",
        meta_split={"genre": "test", "sentiment": "test"},
        episode_scope="group",
    )
    return info, make_table("text", texts, classes, groups)


def labels() -> list[str]:
    """All classes, as GROUP/NAME."""
    return list(_grammar())


def sentences(label: str, count: int) -> list[str]:
    """The first sentences of a class."""
    return _sentences(label, _grammar()[label], count)


def versions(label: str, purpose: str, count: int) -> list[str]:
    """Return sentences of a class that are written for another dataset, from random numbers of their own; some may be
    nearly alike."""
    rng, lines = generator("phrasebook", label, purpose), _grammar()[label]
    return [_finish(_expand(lines[number % len(lines)], rng), label, rng) for number in range(count)]


def _grammar() -> dict[str, list[str]]:
    """label: its lines."""
    sections = re.split(r"(?m)^\[(.+)\]\n", GRAMMAR)[1:]
    return {label: body.strip().split("\n") for label, body in zip(sections[::2], sections[1::2], strict=True)}


def _sentences(label: str, lines: list[str], count: int) -> list[str]:
    """Sentences of a class, no two nearly alike; every line gets its turn."""
    rng = generator("phrasebook", label)
    chosen: list[str] = []
    words: list[frozenset[str]] = []
    for attempt in range(200 * count):
        sentence = _finish(_expand(lines[attempt % len(lines)], rng), label, rng)
        these = frozenset(re.findall(r"[\w']+", sentence.lower()))
        if all(len(these & those) <= ALIKE * len(these | those) for those in words):
            chosen.append(sentence)
            words.append(these)
            if len(chosen) == count:
                break
    return chosen


def _expand(line: str, rng: np.random.Generator) -> str:
    """One version of a line, in which no slot is filled twice alike."""
    used: set[str] = set()
    while found := re.search(r"\(([^()]*)\)|\{(\w+)\}", line):
        options = found[1].split("|") if found[1] is not None else [o for o in SLOTS[found[2]] if o not in used]
        option = options[rng.integers(len(options))]
        if found[2] is not None:
            used.add(option)
        line = line[: found.start()] + option + line[found.end() :]
    return re.sub(r"\s+([,.?;:])", r"\1", " ".join(line.split()))


def _finish(sentence: str, label: str, rng: np.random.Generator) -> str:
    """Reviews and articles as they are printed, requests as carelessly as people type them."""
    capital = re.sub(r"(^|[.?!] )(\w)", lambda match: match[1] + match[2].upper(), sentence)
    if label.split("/")[0] in COUNT:
        return re.sub(
            r"(?<=[a-z,;:] )(The|This|It|Everything)\b", lambda match: match[1].lower(), capital.replace(" i ", " I ")
        )
    style = rng.random()
    if style < 0.4:
        return sentence
    asks = re.match(
        r"(?i)(what|how|where|when|who|which|why|is|are|am|do|does|did|can|could|will|would|has|may|should)\b", sentence
    )
    return re.sub(r"\bi\b", "I", capital) + (("?" if asks else ".") if style > 0.6 else "")
