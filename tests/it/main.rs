

mod simulation;
