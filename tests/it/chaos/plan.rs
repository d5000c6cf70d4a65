//! What a client asks for: chosen from its seed alone, whatever is answered.
//!
//! A tenant has two places for instances. It asks for one thing after the other; most often it waits for the
//! end before it goes on, and now and then it does not. So a deletion meets a provision, and a backup an
//! update.

use super::dice::Dice;

/// The places of a tenant.
pub const PLACES: usize = 2;
/// The most bindings of an instance.
const BINDINGS_MAX: usize = 3;
/// The most units that an instance is given.
const UNITS_MAX: u32 = 3;

/// Something that is asked for, of the instance in one of the tenant's places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    Provision,
    /// Of the newest backup of the instance in the other place.
    Restore,
    /// Of a backup that another tenant has.
    Steal,
    Bind {
        binding: String,
    },
    Rotate {
        binding: String,
        predecessor: String,
    },
    Unbind {
        binding: String,
    },
    /// Writes into the database, as an application does.
    Write,
    BackUp,
    Update {
        units: u32,
    },
    /// Replaces a member.
    Repair {
        member: usize,
    },
    Deprovision,
}

/// A turn of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub place: usize,
    pub wish: Wish,
    /// Whether the same is asked for once more at once, as by a platform that did not hear the answer.
    pub twice: bool,
    /// Whether the tenant waits for the end.
    pub waits: bool,
}

/// What the tenant believes to have in a place.
#[derive(Debug, Clone, Default)]
struct Place {
    exists: bool,
    bindings: Vec<String>,
    is_backed_up: bool,
    units: u32,
}

/// The turns of one tenant, without an end.
pub struct Plan {
    dice: Dice,
    places: [Place; PLACES],
    named: usize,
}

impl Plan {
    pub fn new(dice: Dice) -> Self {
        Self {
            dice,
            places: [Place::default(), Place::default()],
            named: 0,
        }
    }

    fn new_binding(&mut self) -> String {
        self.named += 1;
        format!("b{}", self.named)
    }

    fn make(&mut self, place: usize) -> Wish {
        let other = &self.places[1 - place];
        let restores = other.exists && other.is_backed_up;
        let wish = match self.dice.below(10) {
            0 => Wish::Steal,
            1..=5 if restores => Wish::Restore,
            _ => Wish::Provision,
        };
        if wish != Wish::Steal {
            let units = 1;
            self.places[place] = Place {
                exists: true,
                units,
                ..Place::default()
            };
        }
        wish
    }

    fn use_it(&mut self, place: usize) -> Wish {
        let bindings = self.places[place].bindings.clone();
        let chosen = self.dice.one_of(&bindings).cloned();
        let is_full = bindings.len() >= BINDINGS_MAX;
        let roll = self.dice.below(100);
        let wish = match (roll, chosen) {
            (_, None) => Wish::Bind {
                binding: self.new_binding(),
            },
            (0..15, Some(_)) if !is_full => Wish::Bind {
                binding: self.new_binding(),
            },
            (15..25, Some(predecessor)) => Wish::Rotate {
                binding: self.new_binding(),
                predecessor,
            },
            (25..40, Some(binding)) => Wish::Unbind { binding },
            (40..60, _) => Wish::BackUp,
            (60..68, _) if self.places[place].units < UNITS_MAX => Wish::Update {
                units: self.places[place].units + 1,
            },
            (68..74, _) => Wish::Repair {
                member: self.dice.below(3),
            },
            (74..88, _) => Wish::Deprovision,
            _ => Wish::Write,
        };
        let place = &mut self.places[place];
        match &wish {
            Wish::Bind { binding } => place.bindings.push(binding.clone()),
            Wish::Rotate {
                binding,
                predecessor,
            } => {
                place.bindings.retain(|one| one != predecessor);
                place.bindings.push(binding.clone());
            }
            Wish::Unbind { binding } => place.bindings.retain(|one| one != binding),
            Wish::BackUp => place.is_backed_up = true,
            Wish::Update { units } => place.units = *units,
            Wish::Deprovision => *place = Place::default(),
            Wish::Provision | Wish::Restore | Wish::Steal | Wish::Write | Wish::Repair { .. } => {}
        }
        wish
    }
}

impl Iterator for Plan {
    type Item = Turn;

    fn next(&mut self) -> Option<Turn> {
        let place = self.dice.below(PLACES);
        let wish = match self.places[place].exists {
            true => self.use_it(place),
            false => self.make(place),
        };
        Some(Turn {
            place,
            twice: self.dice.chance(15),
            // What is asked of a binding or a backup needs the instance.
            waits: self.dice.chance(match wish {
                Wish::Provision | Wish::Restore => 80,
                _ => 70,
            }),
            wish,
        })
    }
}

#[test]
fn a_seed_says_all_that_is_asked_for() {
    let turns = |seed| Plan::new(Dice::new(seed)).take(500).collect::<Vec<_>>();
    assert_eq!(turns(7), turns(7));
    assert_ne!(turns(7), turns(8));
    let has = |is: &dyn Fn(&Turn) -> bool| turns(7).iter().any(is);
    assert!(has(&|turn| turn.wish == Wish::Restore));
    assert!(has(&|turn| turn.wish == Wish::Steal));
    assert!(has(&|turn| matches!(turn.wish, Wish::Rotate { .. })));
    assert!(has(&|turn| turn.wish == Wish::Deprovision && turn.twice));
    assert!(has(&|turn| turn.wish == Wish::Provision && !turn.waits));
}
